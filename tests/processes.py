"""
Processes of their own that need not import AllenNLP anew, which takes longer than most of them work: a server
that has imported it, and nothing of this package, forks them.
"""

import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).parents[1]
_ALLENNLP = ["allennlp.commands", "allennlp.predictors"]
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def start_server() -> None:
    """
    Start the server, unless it runs. All that `multiprocessing` starts by "forkserver" comes from it. A
    process that is about to import AllenNLP, and has nothing of this package yet, forks it. Any other starts
    a new Python, which imports AllenNLP once more.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_ALLENNLP)
    before, spawn = dict(os.environ), util.spawnv_passfds
    os.environ.update(_ENVIRONMENT)
    try:
        with _silent():
            resource_tracker.ensure_running()
            if before.items() >= _ENVIRONMENT.items() and "allennlp_metaner" not in sys.modules:
                for module in _ALLENNLP:
                    importlib.import_module(module)
                util.spawnv_passfds = _fork
            forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _silent() -> Iterator[None]:
    """What processes say that begin here goes nowhere, whether pytest captures already or not."""
    outputs = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(os.devnull, "wb") as nowhere:
            for number in outputs:
                os.dup2(nowhere.fileno(), number)
        yield
    finally:
        for number, output in outputs.items():
            os.dup2(output, number)
            os.close(output)


def _fork(path: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
    """In place of `spawnv_passfds`: a fork runs what a new Python would, and has no other files open."""
    process = os.fork()
    if process:
        return process
    try:
        passed = {0, 1, 2, *files}
        for file in map(int, os.listdir("/dev/fd")):
            if file not in passed:
                with suppress(OSError):
                    os.close(file)
        gc.enable()
        exec(arguments[-1], {})
    finally:
        os._exit(0)


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
