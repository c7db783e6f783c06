"""The page of `to_html` and of `metaner-label` in a browser, on light and dark screens."""

from pathlib import Path

import pytest

from allennlp_metaner.tagging import outputs
from allennlp_metaner.tagging.name_tagger import NameTagger
from tests.analysis.test_case_page import contrast
from tests.browser import BROWSER, Browser
from tests.tagging.test_results import TEXT_WITH_NAMES

COLORS = """
[document.body, ...document.querySelectorAll('mark, mark span')].map(e => [
  getComputedStyle(e).color, getComputedStyle(e.tagName === 'SPAN' ? e.parentElement : e).backgroundColor])
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome found")
def test_light_and_dark_screens(tagger: NameTagger, tmp_path: Path) -> None:
    document = tagger.predict(TEXT_WITH_NAMES)
    pages = {"one": document.to_html(page=True), "all": "".join(outputs.html([document, document]))}
    with Browser(tmp_path) as browser:
        for name, content in pages.items():
            path = tmp_path / f"{name}.html"
            path.write_text(content, "utf-8")
            grounds = set()
            for dark in (False, True):
                browser.open(path.as_uri(), dark=dark)
                colors = browser.evaluate(COLORS)
                assert len(colors) == 1 + 8 * content.count('class="entities"')
                assert min(contrast(*pair) for pair in colors) >= 4.5
                grounds.add(colors[0][1])
            assert len(grounds) == 2
        assert browser.console == []
