"""The requirement files say the same thing in three ways (uv, pip, setup.py): they must not drift apart."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1"} for minor in (10, 11, 12)
]
UNRESOLVED = {"allennlp", "allennlp-models"}
"""Installed without their own requirements, which no longer install."""


@cache
def read(name: str) -> dict[str, list[Requirement]]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return group(line for line in lines if line and not line.startswith("#"))


def group(lines: Iterable[str]) -> dict[str, list[Requirement]]:
    requirements: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, lines):
        requirements.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return requirements


def setup_requirements() -> dict[str, list[Requirement]]:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (lines,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "install_requires"
    ]
    return group(lines)


def pinned(name: str, environment: dict[str, str]) -> str:
    """The one version of `name` that the constraints pin in this environment."""
    found = [
        requirement
        for requirement in read("constraints.txt")[name]
        if requirement.marker is None or requirement.marker.evaluate({**environment, "sys_platform": "linux"})
    ]
    assert len(found) == 1, found
    (pin,) = found[0].specifier
    assert pin.operator == "=="
    return pin.version


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment["python_version"])
@pytest.mark.parametrize("name", ["overrides.txt", "pip.txt", "setup.py"])
def test_constraints_satisfy_every_range(name: str, environment: dict[str, str]) -> None:
    wanted = setup_requirements() if name == "setup.py" else read(name)
    for package, requirements in wanted.items():
        assert requirements[0].specifier.contains(pinned(package, environment)), package


def test_pip_list_leaves_nothing_out() -> None:
    needed = setup_requirements().keys() - UNRESOLVED
    for package in UNRESOLVED:
        for requirement in map(Requirement, requires(package) or []):
            # A marker that no supported Python meets, or an extra, makes it optional.
            if requirement.marker is None or any(
                requirement.marker.evaluate({**environment, "extra": ""}) for environment in ENVIRONMENTS
            ):
                needed |= {canonicalize_name(requirement.name)}
    assert read("pip.txt").keys() == needed - UNRESOLVED


def test_no_package_index_is_named() -> None:
    for path in [*(ROOT / "requirements").iterdir(), ROOT / "setup.py", ROOT / "Makefile"]:
        assert not re.search(r"https?://|--(extra-)?index|--find-links", path.read_text(encoding="utf-8")), (
            path
        )


def test_only_allennlp_is_installed_against_its_own_requirements() -> None:
    """An override also hides what other packages say, such as torchvision about torch: ask them all."""
    conflicts = []
    for package in read("constraints.txt").keys() - UNRESOLVED:
        try:
            requirements = map(Requirement, requires(package) or [])
        except PackageNotFoundError:
            continue
        for requirement in requirements:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            installed = version(requirement.name)
            if not requirement.specifier.contains(installed, prereleases=True):
                conflicts.append(f"{package} needs {requirement}, installed is {installed}")
    assert not conflicts
