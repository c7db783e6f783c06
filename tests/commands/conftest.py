"""Runs a command of this package in this process, as `allennlp NAME ARGUMENTS` would."""

import argparse
from collections.abc import Callable

import pytest
from allennlp.commands.subcommand import Subcommand

import allennlp_metaner  # noqa: F401  # registers the commands

Command = Callable[..., None]


@pytest.fixture
def command() -> Command:
    def run(name: str, *arguments: object) -> None:
        parser = argparse.ArgumentParser()
        Subcommand.by_name(name)().add_subparser(parser.add_subparsers())
        parsed = parser.parse_args([name, *map(str, arguments)])
        parsed.func(parsed)

    return run
