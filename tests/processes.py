"""
Processes of their own that need not import AllenNLP anew, which takes longer than most of them work: a server
that has imported it, and nothing of this package, forks them.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).parents[1]
_ALLENNLP = ["allennlp.commands", "allennlp.predictors"]
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def start_server(empty: Path) -> None:
    """
    Start the server, unless it runs. All that `multiprocessing` starts by "forkserver" comes from it. Its
    caches of AllenNLP and of the model hub are in `empty`, a folder without anything.
    """
    caches = {"HF_HOME": str(empty / "hub"), "ALLENNLP_CACHE_ROOT": str(empty / "allennlp")}
    before = dict(os.environ)
    os.environ.update({**_ENVIRONMENT, **caches})
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_ALLENNLP)
        forkserver.ensure_running()
    finally:
        for name in _ENVIRONMENT.keys() | caches.keys():
            os.environ.pop(name)
        os.environ.update(before)


class RunningProcess:
    """
    A process of the server: `function` with its arguments, in `folder`, with no variable `METANER_...` but
    those of `environment`. What it prints goes to the file `output`.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: Any,
        folder: Path,
        output: Path,
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("METANER_")}
        self._output = output
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_work,
            args=(function, arguments, folder, output, {**inherited, **_ENVIRONMENT, **(environment or {})}),
            daemon=True,
        )
        self._process.start()

    @property
    def printed(self) -> str:
        """What it has printed until now."""
        return self._output.read_text("utf-8") if self._output.exists() else ""

    def wait_for(self, find: Callable[[str], Any], timeout: float = 300) -> Any:
        """What `find` finds in what is printed, as soon as it finds something."""
        end = time.monotonic() + timeout
        while not (found := find(self.printed)):
            assert self._process.is_alive() and time.monotonic() < end, self.printed[-4000:]
            time.sleep(0.05)
        return found

    def finish(self, timeout: float = 600) -> Optional[int]:
        """Wait for its end, and return its exit status."""
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def allennlp(*arguments: str) -> None:
    """What `python -m allennlp ARGUMENTS` does, in a process that knows nothing of this package."""
    assert "allennlp_metaner" not in sys.modules
    sys.argv = ["allennlp", *arguments]
    runpy.run_module("allennlp", run_name="__main__", alter_sys=True)


def _work(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    folder: Path,
    output: Path,
    environment: dict[str, str],
) -> None:
    with output.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # Where `python -m` looks first.
    sys.path.insert(0, str(folder))
    function(*arguments)
