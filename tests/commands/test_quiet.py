"""No command of ours buries its result under AllenNLP's log."""

import logging
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from allennlp_metaner import commands
from allennlp_metaner.commands.quiet import quiet

COMMANDS = sorted(
    path.stem
    for path in Path(commands.__path__[0]).glob("*.py")
    if "@Subcommand.register" in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_quiet(name: str) -> None:
    run = import_module(f"allennlp_metaner.commands.{name}")._run
    # Left by the decorator `quiet()`.
    assert run.__wrapped__.__name__ == "_run"


def test_quiet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.delenv("ALLENNLP_LOG_LEVEL", raising=False)
    monkeypatch.delenv("ALLENNLP_DEBUG", raising=False)

    def messages() -> list[str]:
        caplog.clear()
        with quiet():
            logging.getLogger("allennlp").warning("noise")
            warnings.warn("noise", stacklevel=2)
            logging.getLogger("allennlp").error("error")
        return [record.message for record in caplog.records]

    assert messages() == ["error"] and not recwarn.list
    logging.getLogger("allennlp").warning("after")
    assert caplog.records[-1].message == "after"
    monkeypatch.setenv("ALLENNLP_LOG_LEVEL", "INFO")
    assert messages() == ["noise", "error"]
