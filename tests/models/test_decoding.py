"""From logits to tags: every word's best, or the best well-formed sequence."""

import itertools

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from hypothesis import given, settings
from hypothesis import strategies as st

from allennlp_metaner.models.decoding import Decoder

LABELS = ["O", "B-PER", "I-PER", "[CLS]", "B-LOC", "I-LOC", "X", "I-ORG"]
NAMES = dict(enumerate(LABELS))


def is_well_formed(tags: list[str]) -> bool:
    return all(
        not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag)
        for before, tag in zip(["O", *tags], tags, strict=False)
    )


def visible(tags: list[str]) -> list[str]:
    return [tag if tag[:2] in ("B-", "I-") else "O" for tag in tags]


def decode(logits: torch.Tensor, constrained: bool) -> list[str]:
    mask = torch.ones(1, len(logits), dtype=torch.bool)
    (tags,) = Decoder(NAMES, constrained)(logits.unsqueeze(0), mask)  # type: ignore[arg-type]
    return tags


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 12))
def test_well_formed(seed: int, length: int) -> None:
    logits = torch.randn(length, len(LABELS), generator=torch.Generator().manual_seed(seed)) * 3
    best = [LABELS[i] for i in logits.argmax(dim=1)]
    free, constrained = decode(logits, False), decode(logits, True)
    assert free == visible(best)
    assert len(constrained) == length
    assert is_well_formed(constrained)
    if is_well_formed(free):
        assert constrained == free


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_best_of_all_well_formed_sequences(seed: int) -> None:
    logits = torch.randn(3, len(LABELS), generator=torch.Generator().manual_seed(seed)) * 3
    scores = logits.log_softmax(dim=1)
    candidates = [
        (sum(scores[i, label].item() for i, label in enumerate(path)), visible([LABELS[i] for i in path]))
        for path in itertools.product(range(len(LABELS)), repeat=3)
    ]
    best = max((c for c in candidates if is_well_formed(c[1])), key=lambda c: c[0])
    assert decode(logits, True) == best[1]


@pytest.mark.parametrize("constrained", [False, True])
def test_masked_words_have_no_tag(constrained: bool) -> None:
    logits = torch.zeros(2, 4, len(LABELS))
    logits[:, :, 1] = 5
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    tags = Decoder(NAMES, constrained)(logits, mask)  # type: ignore[arg-type]
    assert tags == [["B-PER"] * 4, ["B-PER"]]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ignored_types(seed: int, constrained: bool) -> None:
    """The choice is the same, and then tags of these types become O."""
    logits = torch.randn(40, len(LABELS), generator=torch.Generator().manual_seed(seed)) * 3
    mask = torch.ones(1, 40, dtype=torch.bool)
    decoder = Decoder(NAMES, constrained, ["PER", "DATE"])
    (found,) = decoder(logits.unsqueeze(0), mask)  # type: ignore[arg-type]
    chosen = decode(logits, constrained)
    assert any(tag.endswith("PER") for tag in chosen)
    assert found == ["O" if tag.endswith("PER") else tag for tag in chosen]
    assert decoder.names(torch.tensor([[1, 2, 4]]), mask[:, :3]) == [["O", "O", "B-LOC"]]  # type: ignore[arg-type]


@pytest.mark.parametrize("type_", ["B-MISC", "O", ""])
def test_ignored_types_are_types(type_: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ignored_types has .*\[\"MISC\"\]"):
        Decoder(NAMES, ignored_types=[type_])


def test_names_and_index() -> None:
    decoder = Decoder(NAMES)
    mask = torch.tensor([[True, True, False]])
    assert decoder.names(torch.tensor([[4, 3, 1]]), mask) == [["B-LOC", "O"]]  # type: ignore[arg-type]
    assert [decoder.index(tag) for tag in ("O", "I-ORG")] == [0, 7]
