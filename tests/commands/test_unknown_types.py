"""A file with a type that the model never saw is refused by every command, with its place and the way out."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from allennlp.common.checks import ConfigurationError

from tests.commands.conftest import Command


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "ARCHIVE", "DATA"),
        ("metaner-errors", "ARCHIVE", "DATA"),
        ("metaner-diagnose", "ARCHIVE", "DATA"),
        ("metaner-cases", "ARCHIVE", "ARCHIVE", "DATA", "-o", "PAGE"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_unknown_types(
    command: Command, tiny_run: SimpleNamespace, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data, page = tmp_path / "dates.txt", tmp_path / "page.html"
    data.write_text("Anna - - I-PER\n\nIt - - O\nrained - - O\nMonday - - I-DATE\n", "utf-8")
    given = {"ARCHIVE": tiny_run.archive, "DATA": data, "PAGE": page}
    # The config lists the types of its corpora, by which the reader already refuses others.
    any_type = json.dumps({"validation_dataset_reader.base_reader.entity_types": None})
    with pytest.raises(ConfigurationError, match=r'dates\.txt:3: .*DATE.*label_map=\{"DATE": "O"\}'):
        command(*(given.get(argument, argument) for argument in arguments), "--overrides", any_type)
    assert not page.exists()
