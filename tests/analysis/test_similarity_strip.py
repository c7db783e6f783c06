"""The picture of similarities: what is where, what is said, and numbers that do not overlap."""

import re
from xml.etree import ElementTree

from allennlp_metaner.analysis.similarity_strip import similarity_strip

OWN, ALL = [0.9, 0.7, 0.695], [0.9, 0.7, 0.695, 0.5, 0.6]


def test_picture() -> None:
    svg = ElementTree.fromstring(similarity_strip(OWN, ALL, "sentence <4>"))
    title, desc, line = svg[:3]
    assert svg.get("role") == "img" and title.text == "Similarity of the neighbors of sentence <4>"
    assert desc.text == "They have 0.900, 0.700, 0.695. Those of all sentences are between 0.500 and 0.900."
    circles = svg.findall("circle")
    left, right = float(line.get("x1", "")), float(line.get("x2", ""))
    expected = [left + (value - 0.5) / 0.4 * (right - left) for value in [*ALL, *OWN]]
    for circle, x in zip(circles, expected, strict=True):
        assert abs(float(circle.get("cx", "")) - x) <= 0.05
    assert [circle.get("class") for circle in circles] == [None] * 5 + ["own"] * 3
    assert [text.text for text in svg.findall("text")] == ["1", "2-3", "0.50", "0.90"]


def test_all_alike() -> None:
    svg = similarity_strip([0.5, 0.5], [0.5, 0.5], "sentence 1")
    assert re.findall(r'cx="([^"]*)"', svg) == ["160.0"] * 4 and ">1-2</text>" in svg
