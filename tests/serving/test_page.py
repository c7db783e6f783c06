"""The page in a browser: by mouse and keyboard, on a phone, in the dark, and from right to left."""

import json
import re
from collections.abc import Iterator

import pytest

from allennlp_metaner.analysis.similarity_strip import similarity_strip
from allennlp_metaner.serving.page import page, page_headers
from tests.analysis.test_case_page import contrast
from tests.browser import BROWSER, CONTROL, Browser
from tests.serving.conftest import PlainBackend, Running, Start, taggers

HOSTILE = "<img src=x onerror=alert(1)>"
# A character outside of the basic plane, so that places in UTF-16 differ from those in code points.
TEXT = f"🙂 in Élise Novak. Then so Rome {HOSTILE}."
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome found")
COLORS = """
(() => {
  const ground = e => {
    const color = getComputedStyle(e).backgroundColor;
    return color.startsWith('rgba(') ? ground(e.parentElement) : color;
  };
  const seen = [...document.querySelectorAll('body *')].filter(e => e.offsetParent && e.innerText);
  return seen.map(e => [e.tagName + ' ' + e.className + ' ' + e.id, getComputedStyle(e).color, ground(e)]);
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def visit(browser: Browser, service: Running, text: str = TEXT, **screen: int | bool) -> None:
    browser.console.clear()
    browser.open(f"{service.url}/", **screen)  # type: ignore[arg-type]
    browser.wait("state.health !== null")
    browser.evaluate("document.querySelector('#text').focus()")
    browser.type(text)
    browser.press("Enter", CONTROL)
    browser.wait("/sentence/.test(document.querySelector('#status').textContent)")


def marks(browser: Browser, where: str = "#document") -> list[str]:
    return browser.evaluate(
        f"[...document.querySelectorAll('{where} mark, {where} .missed')].map("
        "e => [e.tagName, e.className, e.innerText].join(' ').trim().replaceAll('\\xa0', ' '))"
    )


def focused(browser: Browser) -> str:
    return browser.evaluate("document.activeElement.id || document.activeElement.innerText")


def shown(browser: Browser) -> str:
    return browser.evaluate("document.querySelector('#neighbors').innerText")


def test_the_page_is_one_file(service: Running) -> None:
    response = service.client.get("/")
    assert response.text == page() and response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert policy == page_headers()["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"https?://|@import|url\(|\bsrc=|innerHTML", page())
    assert re.findall(r'href="([^"]*)"', page()) == ["data:,"]


@in_browser
def test_names_and_what_adaptation_changed(browser: Browser, service: Running) -> None:
    visit(browser, service)
    assert browser.evaluate("document.querySelector('#document').textContent").startswith("🙂 in Élise Novak")
    text = browser.evaluate("document.querySelector('#status').textContent")
    assert text.startswith("3 names in 2 sentences, ")
    assert marks(browser) == [
        "MARK  Élise Novak PER 0.33",
        "MARK changed Then LOC 1.00",
        "MARK changed Rome LOC 0.33",
    ]
    assert browser.evaluate("document.querySelector('#changes').innerText").replace("\xa0", " ").split(
        "\n"
    ) == [
        "Adaptation changed:",
        "+ Then LOC 1.00",
        "+ Rome LOC 0.33",
    ]
    browser.mouse("#off", click=True)
    assert marks(browser) == [
        "MARK  Élise Novak PER 0.33",
        "SPAN missed Then LOC 1.00",
        "SPAN missed Rome LOC 0.33",
    ]
    browser.mouse("#on", click=True)
    browser.evaluate("$('threshold').value = 0.5; $('threshold').dispatchEvent(new Event('input'))")
    assert marks(browser) == ["MARK changed Then LOC 1.00"]
    assert marks(browser, "#legend") == ["MARK  1 LOC"]
    assert browser.console == []


@in_browser
def test_the_mouse_shows_neighbors(browser: Browser, service: Running) -> None:
    visit(browser, service)
    assert "Point at a sentence" in shown(browser)
    browser.mouse(".sentence:nth-of-type(2)")
    assert "Neighbors of sentence 2" in shown(browser) and "0.500" in shown(browser)
    assert marks(browser, "#neighbors") == ["MARK  Peter PER"]
    browser.mouse(".sentence", click=True)
    browser.mouse(".sentence:nth-of-type(2)")
    assert "Neighbors of sentence 1" in shown(browser)
    assert browser.evaluate("document.querySelector('.sentence').getAttribute('aria-pressed')") == "true"
    browser.mouse(".sentence", click=True)
    browser.mouse(".sentence:nth-of-type(2)")
    assert "Neighbors of sentence 2" in shown(browser)


@in_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_picture_of_the_neighbors(browser: Browser, service: Running, dark: bool) -> None:
    visit(browser, service, dark=dark)
    browser.mouse(".sentence:nth-of-type(2)")
    box = "document.querySelector('#neighbors svg').getBoundingClientRect()"
    assert browser.evaluate(f"{box}.width") > 100 and browser.evaluate(f"{box}.height") > 20
    said = browser.evaluate("document.querySelector('#neighbors svg title').textContent")
    assert said == "Similarity of the neighbors of sentence 2"
    # The dot of its one neighbour is not of the colour of the ground.
    dot, ground = browser.evaluate(
        "[getComputedStyle(document.querySelector('.own')).fill,"
        " getComputedStyle(document.querySelector('#neighbors')).backgroundColor]"
    )
    assert contrast(dot, ground) >= 3
    # It is the picture of the pages of case studies.
    own, others = [0.9, 0.7, 0.695], [0.9, 0.7, 0.695, 0.5, 0.6]
    objects = [[{"similarity": value} for value in values] for values in (own, others)]
    drawn = browser.evaluate(f"strip(...{json.dumps(objects)}).outerHTML")
    expected = re.sub(r"<(line|circle)([^>]*)/>", r"<\1\2></\1>", similarity_strip(own, others, "sentence 2"))
    assert drawn == expected
    assert browser.console == []


@in_browser
def test_all_of_it_by_keyboard(browser: Browser, service: Running) -> None:
    browser.open(f"{service.url}/")
    browser.wait("state.health !== null")
    for example in ("Español", "Nederlands", "Deutsch", "Français", "中文"):
        browser.press("Tab")
        assert focused(browser) == example
        browser.press("Enter")
        browser.wait("/sentence/.test(document.querySelector('#status').textContent)")
        assert len(browser.evaluate("document.querySelector('#text').value")) > 40
        browser.evaluate("say('')")
    for target in ("text", "find", "on", "threshold"):
        browser.press("Tab")
        assert focused(browser) == target
    browser.evaluate(
        "$('text').value = 'so Anna left. So Bea left. So Cleo left.'; count(); $('find').focus()"
    )
    browser.press(" ")
    browser.wait("/^so Anna/.test($('document').textContent)")
    for _ in range(3):
        browser.press("Tab")
    assert focused(browser).startswith("so Anna") and "sentence 1" in shown(browser)
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert "Cleo" in focused(browser) and "sentence 3" in shown(browser)
    browser.press("Enter")
    browser.mouse(".sentence")
    assert "sentence 3" in shown(browser)
    browser.press("Escape")
    browser.press("ArrowLeft")
    assert "sentence 2" in shown(browser)
    # One stop of the Tab key, however many sentences there are.
    assert browser.evaluate("document.querySelectorAll('.sentence[tabindex=\"0\"]').length") == 1


@in_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_is_readable(browser: Browser, service: Running, dark: bool) -> None:
    visit(browser, service, dark=dark)
    browser.mouse(".sentence")
    seen = browser.evaluate(COLORS)
    assert len(seen) > 30
    # What WCAG asks for small text.
    assert [name for name, *colors in seen if contrast(*colors) < 4.5] == []


@in_browser
def test_a_phone(browser: Browser, service: Running) -> None:
    long = "Donaudampfschifffahrtsgesellschaftskapitän" * 4
    visit(browser, service, f"{TEXT} In {long}.", width=360, height=740)
    browser.mouse(".sentence", click=True)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    # The neighbours are seen beside the sentence.
    top, bottom = browser.evaluate(
        "(box => [box.top, box.bottom])(document.querySelector('#neighbors').getBoundingClientRect())"
    )
    assert top >= 0 and bottom <= 740
    small = browser.evaluate(
        "[...document.querySelectorAll('button')].filter(e => e.getBoundingClientRect().height < 40).length"
    )
    assert small == 0


@in_browser
def test_from_right_to_left(browser: Browser, service: Running) -> None:
    visit(browser, service, "سافرت ليلى إلى Paris.\nin Rome so Anna left")
    assert browser.evaluate("getComputedStyle($('text')).direction") == "rtl"
    boxes = browser.evaluate(
        "[...document.querySelectorAll('#document mark')].map(e => e.getBoundingClientRect().left)"
    )
    middle = browser.evaluate("(b => b.left + b.width / 2)($('document').getBoundingClientRect())")
    # Each line has its own direction: the Arabic one begins at the right, the English one at the left.
    assert boxes[0] > middle > boxes[-1]


@in_browser
def test_errors_are_told(browser: Browser, service: Running) -> None:
    visit(browser, service, "so boom left. Ok")
    assert "out of order" in browser.evaluate("$('status').textContent")
    browser.evaluate(f"$('text').value = {json.dumps('a' * 1001)}; count()")
    assert browser.evaluate("$('find').disabled") is True
    assert "at most 1,000" in browser.evaluate("$('status').textContent")
    browser.evaluate("state.health.max_characters = 5000; count(); find()")
    browser.wait("/^text: 1001 characters/.test($('status').textContent)")
    browser.evaluate("ask = () => Promise.reject(new TypeError()); find()")
    browser.wait("$('status').textContent === 'The service cannot be reached.'")


@in_browser
def test_without_adaptation_there_is_nothing_to_choose(browser: Browser, start: Start) -> None:
    visit(browser, start(taggers(PlainBackend())))
    assert marks(browser) == ["MARK  Élise Novak PER 0.33"]
    for element in ("adaptation", "neighbors", "changes"):
        assert browser.evaluate(f"$('{element}').hidden") is True
    assert browser.evaluate("document.querySelectorAll('[role=button]').length") == 0
