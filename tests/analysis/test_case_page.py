"""The page of case studies: what stands where, and that all of it stays text, also in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional

import pytest

from allennlp_metaner.analysis.case_page import Side, render
from allennlp_metaner.analysis.case_studies import Case, SupportSentence, find_differences

VOID = {"meta", "input"}
HOSTILE = [
    "<script>document.title='run'</script>",
    "<img/src=x/onerror=document.title='run'>",
    "</dd></dl></article>",
    "<!--",
    "a&amp;b",
    '"it\'s"',
]
SUPPORT = (SupportSentence(["Anna", "won"], ["B-PER", "O"], 0.91249),)
CASES = [
    Case(
        1,
        ["Ana", "Ruiz", "visitó", "Sevilla", "."],
        ["B-PER", "I-PER", "O", "B-LOC", "O"],
        ["B-PER", "O", "O", "O", "O"],
        ["B-PER", "I-PER", "O", "B-LOC", "O"],
        (*SUPPORT, SupportSentence(["It", "rained", "in", "York"], ["O", "O", "O", "B-LOC"], 0.5)),
    ),
    Case(2, ["It", "rained"], ["O", "O"], ["O", "O"], ["O", "O"]),
    Case(4, [*"王小明在北京。"], ["O"] * 7, ["O"] * 7, ["B-PER", "I-PER", "I-PER", *["O"] * 4], SUPPORT),
    Case(
        5, HOSTILE, [*["O"] * 5, 'B-<b>"'], [*["O"] * 5, 'B-<b>"'], ['B-<b>"', 'I-<b>"', *["O"] * 4], SUPPORT
    ),
    Case(6, ["من", "مدريد"], ["O", "B-LOC"], ["B-PER", "O"], ["B-ORG", "I-ORG"]),
]
BASE = Side("runs/<base>", False, ["{'a': 1}", "{'b': \"<\"}"])
ADAPTED = Side("runs/meta&co", True)


def page(cases: list[Case] = CASES, max_cases: int = 9) -> str:
    return render(find_differences(cases, max_cases), BASE, ADAPTED, "data/<i>es.txt")


class Element(list):
    """The parts of an element: text and other elements."""

    def __init__(self, name: str, attributes: dict[str, Optional[str]]) -> None:
        super().__init__()
        self.name, self.attributes = name, attributes

    def find(self, name: str) -> list["Element"]:
        inside = [part for part in self if isinstance(part, Element)]
        found = []
        for part in inside:
            found += [part] * (part.name == name) + part.find(name)
        return found

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self)


class Parser(HTMLParser):
    """A tree of elements. Every element must be closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs)
        self.open[-1].append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def parse(html: str) -> Element:
    parser = Parser()
    parser.feed(html)
    parser.close()
    assert len(parser.open) == 1
    return parser.open[0]


def rows(article: Element) -> list[tuple[str, str]]:
    names, sentences = article.find("dt"), article.find("dd")
    return [(name.text, sentence.text) for name, sentence in zip(names, sentences, strict=True)]


def test_sentences_with_their_entities() -> None:
    first, chinese, hostile, arabic = parse(page()).find("article")
    assert rows(first) == [
        ("gold", "Ana RuizPER visitó SevillaLOC ."),
        ("base", "AnaPER ✗ Ruiz visitó SevillaLOC missed ."),
        ("adapted ✓", "Ana RuizPER visitó SevillaLOC ."),
        ("0.912", "AnnaPER won"),
        ("0.500", "It rained in YorkLOC"),
    ]
    assert rows(chinese)[:3] == [
        ("gold", "王小明在北京。"),
        ("base ✓", "王小明在北京。"),
        ("adapted", "王小明PER ✗在北京。"),
    ]
    assert rows(hostile)[0] == ("gold", " ".join(HOSTILE) + '<b>"')
    assert rows(hostile)[2] == (
        "adapted",
        " ".join(HOSTILE[:2]) + '<b>" ✗ ' + " ".join(HOSTILE[2:]) + '<b>" missed',
    )
    # A wrong entity that touches the gold one: that one is not called missed, too.
    assert rows(arabic) == [
        ("gold", "من مدريدLOC"),
        ("base", "منPER ✗ مدريدLOC missed"),
        ("adapted", "من مدريدORG ✗"),
    ]
    assert [article.find("h2")[0].text for article in (first, chinese, hostile, arabic)] == [
        "Sentence 1fixed",
        "Sentence 4regressed",
        "Sentence 5regressed",
        "Sentence 6changed",
    ]
    for sentence in first.find("dd"):
        assert sentence.attributes == {"lang": "", "dir": "auto"}
    colours = {}
    for mark in parse(page()).find("main")[0].find("mark"):
        type_ = mark.find("b")[0].text.removesuffix(" ✗")
        colours.setdefault(type_, set()).add((mark.attributes["class"] or "").split()[0])
    assert colours == {'<b>"': {"t0"}, "LOC": {"t1"}, "ORG": {"t2"}, "PER": {"t3"}}


def test_header_and_filter() -> None:
    tree = parse(page())
    text = tree.find("header")[0].text
    assert "4 of 5 sentences differ: 1 fixed, 2 regressed, 1 changed.\n" in text
    assert "data/<i>es.txt" in text and tree.find("title")[0].text == "Case studies: data/<i>es.txt"
    table = [[cell.text for cell in row] for row in tree.find("table")[0].find("tr")]
    # Gold: two entities in sentence 1, one in 5 and 6 each.
    assert table == [
        ["model", "archive", "adaptation", "F1"],
        ["base", "runs/<base>{'a': 1}{'b': \"<\"}", "no", f"{100 * 2 * 1 / (4 + 3):.2f}"],
        ["adapted", "runs/meta&co", "yes", f"{100 * 2 * 2 / (4 + 5):.2f}"],
    ]
    assert [mark.text for mark in tree.find("p")[2].find("mark")] == ['<b>"', "LOC", "ORG", "PER"]
    assert [radio.attributes["id"] for radio in tree.find("input")] == [
        "only-all",
        "only-fixed",
        "only-regressed",
        "only-changed",
    ]


def test_only_the_first_cases() -> None:
    tree = parse(page(max_cases=2))
    assert [article.attributes["id"] for article in tree.find("article")] == ["sentence-1", "sentence-4"]
    assert "4 of 5 sentences differ: 1 fixed, 2 regressed, 1 changed. Shown are the first 2" in tree.text
    # Nothing to choose that is not there.
    assert len(tree.find("input")) == 3


def test_without_gold_tags_and_without_differences() -> None:
    tree = parse(page([case._replace(gold=None, support=()) for case in CASES]))
    assert "4 of 5 sentences differ: 4 unknown." in tree.text
    assert "F1" not in tree.text and "✗" not in tree.text and "Adapted to" not in tree.text
    assert rows(tree.find("article")[0]) == [
        ("base", "AnaPER Ruiz visitó Sevilla ."),
        ("adapted", "Ana RuizPER visitó SevillaLOC ."),
    ]
    tree = parse(page(CASES[1:2]))
    assert "0 of 1 sentences differ." in tree.text
    assert tree.find("article") == []


def test_more_types_than_colours() -> None:
    tags = [f"B-T{number:02}" for number in range(20)]
    tree = parse(page([Case(1, ["word"] * 20, tags, tags, ["O"] * 20)]))
    style = tree.find("style")[0].text
    assert all(f".{mark.attributes['class']} {{ --hue" in style for mark in tree.find("mark"))


def test_nothing_is_loaded() -> None:
    html = page()
    tree = parse(html)
    names = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "article",
        "fieldset",
        "legend",
    }
    names |= {"label", "input", "small", "h1", "h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td"}
    names |= {"code", "dl", "dt", "dd", "mark", "span", "b", "svg", "desc", "line", "circle", "text"}
    assert {element.name for element in all_elements(tree)} <= names
    attributes = {name for element in all_elements(tree) for name in element.attributes}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style")}
    style = tree.find("style")[0].text
    assert "url(" not in style and "@import" not in style and "//" not in style
    assert "://" not in html


def all_elements(tree: Element) -> list[Element]:
    found = []
    for part in tree:
        if isinstance(part, Element):
            found += [part, *all_elements(part)]
    return found


# --- in a browser ---

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome found")
# Says what is seen: the texts, which cases each choice leaves, and the colours of text and ground.
PROBE = """
<script>
const ground = e => {
  const colour = getComputedStyle(e).backgroundColor;
  return colour === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : colour;
};
const seen = {
  title: document.title,
  text: document.querySelector('main').innerText,
  width: innerWidth,
  needed: document.documentElement.scrollWidth,
  colours: [...document.querySelectorAll('body *')].map(e => [getComputedStyle(e).color, ground(e)]),
  choices: {},
};
for (const radio of document.querySelectorAll('input')) {
  radio.click();
  const left = [...document.querySelectorAll('article')].filter(e => e.offsetParent !== null);
  seen.choices[radio.id] = left.map(e => e.id);
}
document.body.textContent = JSON.stringify(seen);
</script>
"""


def browse(folder: Path, html: str, *options: str) -> tuple[Element, str]:
    """The page as the browser has it in the end, and what the browser's console says."""
    path = folder / "page.html"
    path.write_text(html, "utf-8")
    process = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            # Which root needs; nothing but this page is opened.
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            *options,
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    console = [line for line in process.stderr.splitlines() if "CONSOLE" in line]
    return parse(process.stdout), "\n".join(console)


def probe(folder: Path, *options: str) -> dict[str, Any]:
    # Without the policy that forbids scripts: escaping alone has to hold.
    html = re.sub("<meta http-equiv=.*>\n", "", page())
    tree, _ = browse(folder, html.replace("</body>", PROBE + "</body>"), *options)
    return json.loads(tree.find("body")[0].text)


@in_browser
def test_a_browser_sees_the_same_page_and_runs_and_loads_nothing(tmp_path: Path) -> None:
    tree, console = browse(tmp_path, page())
    expected = parse(page())
    assert tree.find("title")[0].text == expected.find("title")[0].text
    assert [rows(article) for article in tree.find("article")] == [
        rows(article) for article in expected.find("article")
    ]
    assert not tree.find("script") and not tree.find("img")
    # A picture of the similarities for every case that was adapted to something.
    assert len(tree.find("svg")) == sum(bool(article.find("dl")[1:]) for article in tree.find("article")) == 3
    # The page's own policy forbids all loading, and the console tells of every attempt.
    assert console == ""


@in_browser
def test_the_console_would_tell(tmp_path: Path) -> None:
    attack = "<script>document.title = 'run'</script>"
    tree, console = browse(tmp_path, page().replace("<main>", "<main>" + attack))
    assert "Content Security Policy" in console
    assert tree.find("title")[0].text != "run"


@in_browser
@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)], ids=["light", "dark"])
def test_all_is_visible_and_readable(tmp_path: Path, options: tuple[str, ...]) -> None:
    seen = probe(tmp_path, "--window-size=1200,900", *options)
    assert seen["title"] == "Case studies: data/<i>es.txt"
    for word in [*HOSTILE, "王小明在北京。", "visitó"]:
        assert word in seen["text"]
    assert seen["choices"] == {
        "only-all": ["sentence-1", "sentence-4", "sentence-5", "sentence-6"],
        "only-fixed": ["sentence-1"],
        "only-regressed": ["sentence-4", "sentence-5"],
        "only-changed": ["sentence-6"],
    }
    grounds = {luminance(ground) < 0.2 for _, ground in seen["colours"]}
    assert grounds == {bool(options)}
    # What WCAG asks for small text.
    assert min(contrast(*colours) for colours in seen["colours"]) >= 4.5


@in_browser
def test_narrow_screens_need_no_sideways_scrolling(tmp_path: Path) -> None:
    seen = probe(tmp_path, "--window-size=400,900")
    assert seen["needed"] <= seen["width"] <= 500


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)
