"""Overlapping windows over a sequence that is longer than the encoder may see at once."""

from typing import NamedTuple


class Window(NamedTuple):
    """
    Positions `start <= i < end` of a sequence. The window *owns* `keep <= i < end`; what stands before `keep`
    is overlap that an earlier window owns.
    """

    start: int
    end: int
    keep: int


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """
    Split `length` positions into windows of at most `size`, where the last `overlap` positions of a window
    are the overlap of the next one. Every position is owned by exactly one window.

    # Parameters

    length : `int`
        The number of positions, at least 0.
    size : `int`
        The most positions a window may have.
    overlap : `int`
        The overlap between two neighbours, in positions; less than `size`.

    # Returns

    `list[Window]`
        At least one window, from left to right.

    # Raises

    `ValueError`, if `overlap` does not fit into `size`.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap={overlap} must be at least 0 and less than the window size {size}")
    result = [Window(0, min(size, length), 0)]
    while result[-1].end < length:
        owned = result[-1].end
        start = owned - overlap
        result.append(Window(start, min(start + size, length), owned))
    return result
