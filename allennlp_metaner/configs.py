"""
Where the configs that come with the package are: in a clone the folder `training_configs`, in an installed
package a copy of it.

    python -m allennlp_metaner.configs                            # shows the folder
    python -m allennlp_metaner.configs --copy training_configs    # copies it, to use and to change
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from allennlp.common.checks import ConfigurationError

NAME = "training_configs"


def configs_directory() -> Path:
    """
    The folder of the shipped configs.

    # Raises

    `ConfigurationError`, if there is none.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / NAME, package.parent / NAME):
        if folder.is_dir():
            return folder
    raise ConfigurationError(
        f"{package} came without {NAME}. Install the package anew, or clone the repository"
    )


def copy_configs(destination: Path) -> None:
    """
    Copies the shipped configs.

    # Raises

    `ConfigurationError`, if `destination` is there already.
    """
    if destination.exists():
        raise ConfigurationError(f"{destination} is there already. Give the name of a new folder")
    # They import nothing from outside of the folder, so they work anywhere.
    shutil.copytree(configs_directory(), destination)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """The command line, see above."""
    parser = argparse.ArgumentParser(
        prog="python -m allennlp_metaner.configs", description="Show or copy the configs of this package."
    )
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="copy them to a new folder")
    copy = parser.parse_args(arguments).copy
    if copy is not None:
        copy_configs(copy)
    print(copy or configs_directory())


if __name__ == "__main__":
    main()
