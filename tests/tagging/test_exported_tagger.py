"""Batches of exported taggers; that tags are the predictor's is tested in tests/commands/test_export.py."""

from hypothesis import given
from hypothesis import strategies as st

from allennlp_metaner.tagging.exported_tagger import batches_by_length


@given(st.lists(st.integers(1, 200)), st.integers(1, 600))
def test_every_row_is_in_one_batch_that_is_not_too_large(lengths: list[int], padded_length: int) -> None:
    batches = batches_by_length(lengths, padded_length)

    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch[-1]] == max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * lengths[batch[-1]] <= padded_length


def test_rows_of_like_length_are_together() -> None:
    assert batches_by_length([3, 9, 3, 8, 4], 18) == [[0, 2, 4], [3, 1]]
