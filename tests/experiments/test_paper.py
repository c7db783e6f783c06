from statistics import fmean

import pytest

from allennlp_metaner.experiments import paper

TARGETS = ("es", "nl", "de", "fr", "zh")


@pytest.mark.parametrize("system", ["base", "full"])
def test_averages_are_those_of_the_targets(system: str) -> None:
    values = [paper.f1(system, target) for target in TARGETS]
    assert fmean(value for value in values if value) == pytest.approx(paper.average(system), abs=0.005)


def test_low_resource() -> None:
    assert paper.f1("base_es_1", "es") == 76.83
    assert paper.f1("full_nl_5", "nl") == 83.72
    assert paper.f1("full_no_misc_zh_2", "zh") == 82.58
    assert paper.gain("full_de_2", "de") == pytest.approx(1.33)
    assert paper.is_base("base_fr_1") and not paper.is_base("full_fr_1")
    assert paper.base_of("full_no_misc_fr_1") == "base_no_misc_fr_1"
    for system, target in (("full_es_1", "nl"), ("full_es_3", "es"), ("full_it_1", "it")):
        assert paper.f1(system, target) is None
    assert paper.average("full_es_1") is None


def test_names() -> None:
    assert paper.f1("full_no_misc", "zh") == 77.89
    assert paper.gain("full_no_misc", "zh") == pytest.approx(1.47)
    assert paper.average_gain("no_masking") == pytest.approx(1.71)
    assert paper.is_base("base_no_misc") and not paper.is_base("base_adapted")
    for system, target in (("full", "en"), ("base_adapted", "es"), ("no_masking", "es")):
        assert paper.f1(system, target) is paper.gain(system, target) is None
    assert paper.base_of("full_no_misc") == "base_no_misc" and paper.base_of("no_masking") == "base"
    assert paper.average("base_adapted") is paper.average_gain("random_support") is None
