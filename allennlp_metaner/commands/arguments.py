"""The arguments that several commands have, with one meaning and one wording."""

import argparse


def add_archive(subparser: argparse.ArgumentParser, exported: bool = False) -> None:
    """
    `archive_file`.

    # Parameters

    subparser : `argparse.ArgumentParser`
    exported : `bool`, optional (default = `False`)
        Whether the command also takes what `metaner-export` wrote.
    """
    what = (
        "an archive, a serialization directory, or what metaner-export wrote"
        if exported
        else "an archive or a serialization directory"
    )
    subparser.add_argument("archive_file", help=what)


def add_weights_file(subparser: argparse.ArgumentParser) -> None:
    """`--weights-file`."""
    subparser.add_argument("--weights-file", help="overrides the weights of the archive")


def add_cuda_device(subparser: argparse.ArgumentParser) -> None:
    """`--cuda-device`."""
    subparser.add_argument("--cuda-device", type=int, default=-1, help="id of the GPU to use, if any")


def add_overrides(
    subparser: argparse.ArgumentParser, what: str = "settings of the config", output: bool = False
) -> None:
    """
    `--overrides`, or in short `-o`, as everywhere in AllenNLP.

    # Parameters

    subparser : `argparse.ArgumentParser`
    what : `str`, optional (default = `"settings of the config"`)
        What is overridden, and examples, for the help.
    output : `bool`, optional (default = `False`)
        Whether `-o` is the output of this command, and overrides have the long name alone.
    """
    names = ["--overrides"] if output else ["-o", "--overrides"]
    note = " (-o is the output here)" if output else ""
    subparser.add_argument(*names, default="", help=f"a json(net) structure that overrides {what}{note}")
