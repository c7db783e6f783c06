"""Batches joined to one."""

from typing import Any

import pytest
import torch

from allennlp_metaner.nn.collate import Joined, collate, longest, num_sentences, num_subwords


def batch(*lengths: int, first: int = 1) -> dict[str, Any]:
    """Sentences of so many words, with one subword more each, whose numbers count from `first`."""
    words, subwords = max(lengths), max(lengths) + 1
    ids = torch.zeros(len(lengths), subwords, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, : length + 1] = torch.arange(first + 100 * row, first + 100 * row + length + 1)
    positions = torch.arange(words)
    return {
        "tokens": {
            "tokens": {
                "token_ids": ids,
                "mask": positions < torch.tensor(lengths).unsqueeze(1),
                "offsets": positions.expand(len(lengths), -1).unsqueeze(-1).repeat(1, 1, 2) + 1,
            }
        },
        "tags": positions.repeat(len(lengths), 1),
        "vectors": torch.randn(len(lengths), subwords, 4, dtype=torch.float64),
        "metadata": [{"length": length} for length in lengths],
    }


def flat(batch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in batch.items():
        found.update(flat(value) if isinstance(value, dict) else {key: value})
    return found


@pytest.mark.parametrize(
    "lengths",
    [[[3]], [[1]], [[3], [5]], [[5, 2], [1], [3, 3, 4]], [[2], [2], [2]], [[1], [1, 1], [7]]],
    ids=str,
)
def test_rows_in_their_order(lengths: list[list[int]]) -> None:
    """Padded with zeros to the longest, and otherwise as they were."""
    batches = [batch(*of_batch, first=1000 * n) for n, of_batch in enumerate(lengths)]
    found = collate(batches)
    assert num_sentences(found) == sum(map(len, lengths))
    assert longest(found) == max(map(max, lengths)) + 1
    row = 0
    for each in batches:
        for (key, ours), (other, theirs) in zip(flat(found).items(), flat(each).items(), strict=True):
            assert key == other
            part = ours[row : row + num_sentences(each)]
            if isinstance(theirs, list):
                assert part == theirs
                continue
            assert ours.dtype == theirs.dtype
            width = theirs.size(1)
            assert torch.equal(part[:, :width], theirs)
            assert not part[:, width:].any()
        row += num_sentences(each)


def test_keys_stay_in_their_order() -> None:
    assert list(collate([batch(3), batch(5)])) == list(batch(3))


def test_one_batch_is_itself() -> None:
    only = batch(3, 2)
    assert collate([only]) is only


def test_the_batches_stay() -> None:
    batches = [batch(3, 2), batch(5)]
    before = [
        {key: value.clone() for key, value in flat(each).items() if key != "metadata"} for each in batches
    ]
    collate(batches)["tags"].zero_()
    for each, copies in zip(batches, before, strict=True):
        assert all(torch.equal(flat(each)[key], value) for key, value in copies.items())


def test_parts_without_words() -> None:
    """A number or a list of strings a sentence."""
    batches = [{"ids": torch.tensor([[1, 2]]), "weights": torch.tensor([0.5])} for _ in range(2)]
    assert collate(batches)["weights"].tolist() == [0.5, 0.5]


def test_sizes() -> None:
    assert longest(batch(3, 5)) == 6
    assert num_sentences(batch(3, 5)) == 2
    assert longest({"tags": torch.zeros(2, 4), "weights": torch.zeros(9), "metadata": [{}, {}]}) == 4
    assert num_sentences({"metadata": [{}, {}, {}]}) == 3


def test_num_subwords() -> None:
    """By the fullest mask, and with padding where there is none."""
    found = batch(3, 5)
    assert num_subwords(found) == 8
    subwords = found["tokens"]["tokens"]["token_ids"] > 0
    assert num_subwords({**found, "other": {"wordpiece_mask": subwords}}) == 10
    assert num_subwords({"tags": torch.zeros(2, 7)}) == 14


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    pairs = zip(flat(ours).values(), flat(theirs).values(), strict=True)
    return all(a == b if isinstance(a, list) else torch.equal(a, b) for a, b in pairs)


class TestJoined:
    LENGTHS = ([5, 2], [1], [3, 3, 4], [7])

    @pytest.fixture
    def batches(self) -> list[dict[str, Any]]:
        return [batch(*lengths, first=1000 * n) for n, lengths in enumerate(self.LENGTHS)]

    def test_each_batch_is_as_it_was(self, batches: list[dict[str, Any]]) -> None:
        joined = Joined.of(batches)
        assert len(joined) == 4
        assert all(same(ours, theirs) for ours, theirs in zip(joined, batches, strict=True))
        assert same(joined[-1], batches[-1])
        assert Joined.of(joined) is joined

    @pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2, 0], [1], [1, 2], [3, 3, 0], []], ids=str)
    def test_chosen(self, batches: list[dict[str, Any]], chosen: list[int]) -> None:
        """As if the others had never been there: padded no longer than they need."""
        found = Joined.of(batches).choose(chosen)
        assert found.sizes == [len(self.LENGTHS[i]) for i in chosen]
        assert found.longest == [max(self.LENGTHS[i]) + 1 for i in chosen]
        assert all(same(ours, batches[i]) for ours, i in zip(found, chosen, strict=True))
        if chosen:
            assert same(found.whole, collate([batches[i] for i in chosen]))

    def test_slices(self, batches: list[dict[str, Any]]) -> None:
        found = Joined.of(batches)[1:3]
        assert same(found.whole, collate(batches[1:3]))

    def test_sentences(self, batches: list[dict[str, Any]]) -> None:
        found = Joined.of(batches).sentences()
        assert found.longest == [6, 6, 2, 5, 5, 5, 8]
        assert found[1]["tags"].tolist() == batches[0]["tags"][1:].tolist()
        assert found[5]["metadata"] == [{"length": 4}]

    def test_numbers(self, batches: list[dict[str, Any]]) -> None:
        joined = Joined.of(batches)
        assert joined.num_subwords() == [7, 1, 10, 7]
        assert joined.sums([1, 2, 3, 4, 5, 6, 7]) == [3, 3, 15, 7]
        assert Joined.of([{"tags": torch.zeros(2, 7)}, {"tags": torch.zeros(1, 3)}]).num_subwords() == [14, 3]

    def test_no_batches(self) -> None:
        assert list(Joined.of([])) == []
        assert Joined.of([]).num_subwords() == []
