"""Files and functions stay small enough to be read at once."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "allennlp_metaner"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_FILE = 300
LINES_OF_FUNCTION = 50


def code_lines(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring."""
    first = function.body[0]
    described = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    documented = first.end_lineno - first.lineno + 1 if described else 0
    return function.end_lineno - function.lineno + 1 - documented


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_sizes(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.count("\n") <= LINES_OF_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert {f.name: code_lines(f) for f in functions if code_lines(f) > LINES_OF_FUNCTION} == {}
