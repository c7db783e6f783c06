"""The counts of a diagnosis by small examples, and its page."""

from functools import partial

import pytest
import torch
from allennlp.training.optimizers import AdamOptimizer

from allennlp_metaner.analysis.diagnosis import Diagnosis, SupportLoss, TagChanges, TypeOverlap, as_markdown


def test_changed_tags() -> None:
    changes = TagChanges()
    #           fixed    regressed  same     still wrong
    changes.add(
        ["O", "B-LOC", "B-PER", "B-ORG"], ["B-PER", "O", "B-PER", "O"], ["B-PER", "B-LOC", "B-LOC", "B-LOC"]
    )
    changes.add(["O", "O"], ["O", "O"], ["O", "B-PER"])
    # Without gold tags a change is neither right nor wrong.
    changes.add(["O", "O"], ["O", "B-PER"], None)
    assert (changes.sentences, changes.changed_sentences) == (3, 2)
    assert (changes.words, changes.changed) == (8, 4)
    assert (changes.fixed, changes.regressed, changes.still_wrong) == (1, 1, 1)


def test_overlap_of_types() -> None:
    overlap = TypeOverlap()
    assert set(overlap.as_dict().values()) == {None}
    overlap.add({"PER", "LOC"}, [{"PER", "ORG"}, {"PER"}, set()])
    overlap.add(set(), [{"LOC"}])
    overlap.add({"ORG"}, [])
    assert overlap.as_dict() == {
        "sentence_types_in_neighbors": pytest.approx(1 / 3),
        "neighbor_types_in_sentence": pytest.approx(1 / 3),
    }


@pytest.fixture
def diagnosis() -> Diagnosis:
    found = Diagnosis(partial(AdamOptimizer, lr=1e-5), {"eps": 1e-8, "overrides": "{a: 1,\n b: 2}"})
    found.losses += [SupportLoss(1.0, 0.5), SupportLoss(0.2, 0.4)]
    found.gradient.add([torch.tensor([0.0, 1e-10, 1e-3, -1e-3])])
    return found


def test_figures_and_page(diagnosis: Diagnosis) -> None:
    diagnosis.tags.add(["O", "O"], ["B-PER", "O"], ["B-PER", "O"])
    diagnosis.retrieved.add({"PER"}, [{"PER"}, {"LOC"}])
    diagnosis.random.add({"PER"}, [{"LOC"}])
    figures = diagnosis.as_dict()
    assert figures["support_loss"] == {
        "sentences": 2,
        "before": pytest.approx(0.6),
        "after": pytest.approx(0.45),
        "share_lower": 0.5,
    }
    gradient = figures["gradient"]
    assert (gradient["entries"], gradient["share_zero"]) == (4, 0.25)
    assert gradient["share_from_half_step_size"] == 0.5
    assert [row["share_below"] for row in gradient["quantiles"]] == [0.05, 0.25, 0.5, 0.75, 0.95]
    assert gradient["quantiles"][2]["size"] == pytest.approx(1e-10, rel=0.024)
    assert gradient["quantiles"][2]["share_of_full_step"] == pytest.approx(0.01, rel=0.04)
    page = as_markdown(figures)
    assert "| loss before | 0.6 | Mean of 2 support sentences." in page
    assert "| fixed | 1 | " in page and "| right changes | 100 % | " in page
    assert "Random support of the same size: 0 %." in page
    assert "`{a: 1, b: 2}`" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)
    # A sentence explains each figure, but for the lines of headings.
    explained = [line for line in rows if not line.startswith(("|  |", "| ---"))]
    assert len(explained) == 3 + 8 + 5 + 2 and all(line.endswith(". |") for line in explained)


def test_without_gold(diagnosis: Diagnosis) -> None:
    diagnosis.tags.add(["O"], ["B-PER"], None)
    page = as_markdown(diagnosis.as_dict())
    assert "| right changes | - | Not known: the file has no gold tags. |" in page
    assert "| fixed" not in page
    # No neighbours were counted.
    assert "| sentence's types that a neighbour has | - |" in page
