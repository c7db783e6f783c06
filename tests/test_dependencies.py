"""Imports point one way: a part of the package may import itself and the parts before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "allennlp_metaner"

# What each part may import. `nn` and `data` are side by side: nothing in `data` needs `nn`, whose span metric
# counts by the coding schemes.
FOUNDATION = {"archives", "atomic", "concurrency", "data", "file_hash", "nn", "settings", "sharding"}
FOUNDATION |= {"untrusted_config"}
ALLOWED = {
    "settings": set[str](),
    "archives": {"atomic", "file_hash", "untrusted_config"},
    "untrusted_config": set[str](),
    "atomic": set[str](),
    "whole_outputs": {"atomic"},
    "file_hash": set[str](),
    "configs": set[str](),
    "page_style": set[str](),
    "idle_threads": set[str](),
    "concurrency": set[str](),
    "sharding": {"atomic"},
    "data": {"atomic", "concurrency", "settings"},
    "nn": {"data.tag_schemes", "settings"},
    "meta": FOUNDATION,
    "models": FOUNDATION | {"meta"},
    "retrieval": FOUNDATION | {"meta"},
    "tasks": FOUNDATION | {"meta", "models", "retrieval"},
    "training": FOUNDATION | {"meta", "models", "retrieval", "tasks"},
    "predictors": FOUNDATION | {"meta", "models", "retrieval", "tasks"},
    "evaluation": FOUNDATION | {"meta", "models", "retrieval", "tasks", "whole_outputs"},
    # Loads archives as the commands do.
    "tagging": FOUNDATION
    | {"meta", "models", "retrieval", "tasks", "predictors", "commands.loading", "page_style"},
    "serving": FOUNDATION
    | {"meta", "models", "retrieval", "tasks", "predictors", "commands.loading"}
    | {"page_style", "tagging"},
    "unlabelled": FOUNDATION | {"meta", "models", "retrieval", "tasks"},
    "analysis": {"data", "page_style"},
    "exporting": FOUNDATION | {"meta", "models", "retrieval", "tagging", "analysis"},
    # Knows models, readers and trainers by their registered names and AllenNLP's own functions alone.
    "experiments": {"analysis", "archives", "atomic", "idle_threads"},
    "commands": FOUNDATION
    | {"meta", "models", "retrieval", "tasks", "predictors", "tagging", "analysis", "experiments"}
    | {"configs", "exporting", "serving", "unlabelled"},
    # Scripts that stand beside the rest, and that nothing else needs.
    "tools": {"atomic"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, without the package's name: "data.tag_schemes"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from allennlp_metaner.data import tag_schemes` names a module too.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                yield name.removeprefix(PACKAGE.name).removeprefix(".")


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_allowed(importer: str, imported: str) -> bool:
    return any(f"{imported}.".startswith(f"{name}.") for name in {importer, *ALLOWED[importer]})


def test_every_part_is_listed() -> None:
    assert {part(path) for path in modules()} == set(ALLOWED)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    wrong = [name for name in imports(path) if not is_allowed(part(path), name)]
    assert not wrong, f"{part(path)} may not import {', '.join(wrong)}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import allennlp_metaner.tasks.task_field\n"
        "def f():\n    from allennlp_metaner.data import tag_schemes, windows\n"
        "    from allennlp.data import Instance\n",
        encoding="utf-8",
    )
    found = list(imports(module))
    assert found == ["tasks.task_field", "data.tag_schemes", "data.windows"]
    assert [is_allowed("nn", name) for name in found] == [False, True, False]
    assert [is_allowed("meta", name) for name in found] == [False, True, True]
    assert not is_allowed("data", "database")
