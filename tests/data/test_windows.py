"""Windows cover a sequence, and every position belongs to exactly one of them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allennlp_metaner.data.windows import Window, windows

SIZES = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@given(length=st.integers(0, 400), size_and_context=SIZES)
def test_properties(length: int, size_and_context: tuple[int, int]) -> None:
    size, overlap = size_and_context
    found = windows(length, size, overlap)
    owned = [position for window in found for position in range(window.keep, window.end)]
    assert owned == list(range(length))
    assert all(window.end - window.start <= size for window in found)
    assert all(window.end - window.start == size for window in found[:-1])
    assert found[0].start == found[0].keep == 0
    for before, after in itertools.pairwise(found):
        # The overlap is the last `overlap` positions of the window before, and something new follows.
        assert (after.start, after.keep) == (before.end - overlap, before.end)
        assert after.end > after.keep


def test_the_papers_windows() -> None:
    # 128 subwords with 64 of overlap.
    assert windows(128, 128, 64) == [Window(0, 128, 0)]
    assert windows(200, 128, 64) == [Window(0, 128, 0), Window(64, 192, 128), Window(128, 200, 192)]
    assert windows(0, 128, 64) == [Window(0, 0, 0)]


@pytest.mark.parametrize(("size", "overlap"), [(4, 4), (4, 5), (4, -1), (0, 0)])
def test_context_must_fit(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap={overlap} .* window size {size}"):
        windows(10, size, overlap)
