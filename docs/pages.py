"""
The pages of the site that are made from something else: the start page from README.md, one page a module from
its docstrings. `make docs` runs this; links that lead nowhere end it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import griffe
import mkdocs_gen_files

PACKAGE = "allennlp_metaner"
ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
FENCE = re.compile(r"^( *)```", re.MULTILINE)

# Files outside of docs/ that have a page of their own.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "demo/README.md": "demo.md",
    "examples/README.md": "examples.md",
    "benchmarks/results.md": "benchmarks.md",
}


def page_of(file: str) -> Union[str, None]:
    """The page of a file of the repository, or `None` if the site has none for it."""
    if file in PAGES:
        return PAGES[file]
    if file.startswith("docs/") and (ROOT / file).is_file():
        return file.removeprefix("docs/")
    if file.startswith(f"{PACKAGE}/") and file.endswith(".py"):
        return "api" + file.removeprefix(PACKAGE).removesuffix(".py") + ".md"
    return None


def with_links(text: str, file: str, page: str) -> str:
    """
    The text of a file whose links lead to pages. A link to a file that is not on the site becomes its name.

    # Parameters

    text : `str`
    file : `str`
        Where the text is from, relative to the repository.
    page : `str`
        Where it goes, relative to the site.

    # Raises

    `ValueError`, if a link leads to a file that does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(file), match[2]))
        if not (ROOT / target).exists():
            raise ValueError(f"{file} links to {match[2]}, which does not exist")
        found = page_of(target)
        if found is None:
            return f"`{target}`"
        return f"[{match[1]}]({os.path.relpath(found, os.path.dirname(page) or '.')}{match[3] or ''})"

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)", replaced, text)


def write_repository_pages() -> None:
    """Write the pages of `PAGES`, and those of docs/ that link to files outside of it, once more."""
    docs = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    files = {**PAGES, **{f"docs/{page}": page for page in docs}}
    for file, page in files.items():
        text = (ROOT / file).read_text("utf-8")
        with mkdocs_gen_files.open(page, "w") as output:
            output.write(with_links(text, file, page).replace("](docs/images/", "](images/"))


def docstring(item: Union[griffe.Object, griffe.Alias]) -> str:
    """The docstring of an object, whose headings become bold so that the page's contents stay short."""
    if item.docstring is None:
        return ""
    text = item.docstring.value.strip()
    text = re.sub(r"^#+ +(.*)$", r"**\1**", text, flags=re.MULTILINE)
    # Two spaces are not enough for a continued paragraph of Markdown, four of a parameter's text are code.
    lines = []
    for line in text.split("\n"):
        parameter = re.match(r"^(\w+) : (.*)$", line)
        if parameter:
            lines += ["", f"- **{parameter[1]}** : {parameter[2]}  "]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def signature(item: griffe.Function) -> str:
    """The signature of a function as code."""
    return f"```python\ndef {item.name}{item.signature().removeprefix(item.name)}\n```\n"


def sections(module: griffe.Module) -> Iterator[str]:
    """The Markdown of a module, one piece after the other. Anchors are names in lower case."""
    yield f"# {module.path}\n"
    yield docstring(module)
    used: set[str] = set()

    def heading(level: int, name: str) -> str:
        anchor = f" {{ #{name.lower()} }}" if name.lower() not in used else ""
        used.add(name.lower())
        return f"{'#' * level} `{name}`{anchor}\n"

    for name, item in module.members.items():
        if name.startswith("_") or item.is_alias:
            continue
        if isinstance(item, griffe.Function):
            yield heading(2, name)
            yield signature(item)
            yield docstring(item)
        elif isinstance(item, griffe.Class):
            yield heading(2, name)
            bases = ", ".join(str(base) for base in item.bases)
            yield f"```python\nclass {name}({bases})\n```\n" if bases else f"```python\nclass {name}\n```\n"
            yield docstring(item)
            for method_name, method in item.members.items():
                if (
                    isinstance(method, griffe.Function)
                    and not method_name.startswith("_")
                    and method.docstring
                ):
                    yield heading(3, method_name)
                    yield signature(method)
                    yield docstring(method)
        elif isinstance(item, griffe.Attribute) and item.docstring:
            yield heading(2, name)
            yield docstring(item)


def write_modules(module: griffe.Module, navigation: list[str]) -> None:
    """Write the pages of a package's modules."""
    for name, item in sorted(module.members.items()):
        if isinstance(item, griffe.Module) and not item.is_alias:
            if item.is_package or item.is_init_module:
                write_modules(item, navigation)
            elif not name.startswith("_"):
                page = "api/" + item.path.removeprefix(f"{PACKAGE}.").replace(".", "/") + ".md"
                navigation.append(page)
                with mkdocs_gen_files.open(page, "w") as output:
                    output.write("\n".join(sections(item)))


def main() -> None:
    """Write all pages."""
    write_repository_pages()
    pages: list[str] = []
    write_modules(griffe.load(PACKAGE, search_paths=[str(ROOT)]), pages)
    lines = ["# API", "", "One page a module:", ""]
    lines += [f"- [{page[4:-3].replace('/', '.')}]({page[4:]})" for page in pages]
    with mkdocs_gen_files.open("api/index.md", "w") as output:
        output.write("\n".join(lines) + "\n")


main()
