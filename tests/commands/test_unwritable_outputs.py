"""An output that cannot be written is found before an archive is even looked for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

Command = Callable[..., None]


@pytest.mark.parametrize(
    "arguments",
    [
        ("metaner-errors", "no.tar.gz", "data", "--output-directory", "OUTPUT"),
        ("metaner-diagnose", "no.tar.gz", "data", "--output-directory", "OUTPUT"),
        ("metaner-neighbors", "no.tar.gz", "data", "--output-file", "OUTPUT"),
        ("metaner-label", "no.tar.gz", "data", "-o", "OUTPUT.jsonl"),
        ("metaner-pseudo-label", "no.tar.gz", "--text", "data", "--output-directory", "OUTPUT"),
        ("metaner-average", "no.tar.gz", "-o", "OUTPUT"),
        ("metaner-report", "no.jsonnet", "-s", "runs", "-o", "OUTPUT"),
        ("metaner-cases", "no.tar.gz", "no.tar.gz", "data", "-o", "OUTPUT.html"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_unwritable(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").write_text("Maria visited Paris .\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"data/new.*: cannot be written"):
        command(*(argument.replace("OUTPUT", "data/new") for argument in arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
