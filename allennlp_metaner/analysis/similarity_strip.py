"""A small picture of how near a sentence's neighbours are, beside those of other sentences."""

from collections.abc import Iterator, Sequence
from html import escape

WIDTH, HEIGHT = 320, 56
MARGIN, AXIS = 18, 34
# Numbers of neighbours that are nearer to each other would be written over each other.
LABEL_WIDTH = 16


def similarity_strip(own: Sequence[float], all_similarities: Sequence[float], name: str) -> str:
    """
    The similarities on a line. The page of the service draws the same.

    # Parameters

    own : `Sequence[float]`
        Those of the sentence's neighbours, the most similar first.
    all_similarities : `Sequence[float]`
        Those of the neighbours of all sentences of the page, `own` among them.
    name : `str`
        What the sentence is called.

    # Returns

    `str`
        An element `svg`, with a title and a description for those who do not see it.
    """
    low, high = min(all_similarities), max(all_similarities)

    def place(similarity: float) -> float:
        share = (similarity - low) / (high - low) if high > low else 0.5
        return MARGIN + share * (WIDTH - 2 * MARGIN)

    places = [place(similarity) for similarity in own]
    listed = ", ".join(f"{similarity:.3f}" for similarity in own)
    parts = [
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>Similarity of the neighbors of {escape(name)}</title>",
        f"<desc>They have {listed}. Those of all sentences are between {low:.3f} and {high:.3f}.</desc>",
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{AXIS}" y2="{AXIS}"/>',
        *(f'<circle cx="{place(value):.1f}" cy="{AXIS}" r="3"/>' for value in all_similarities),
        *(f'<circle class="own" cx="{x:.1f}" cy="{AXIS}" r="5"/>' for x in places),
        *(f'<text x="{x:.1f}" y="20" text-anchor="middle">{label}</text>' for x, label in _labels(places)),
        f'<text x="{MARGIN}" y="52" text-anchor="middle">{low:.2f}</text>',
        f'<text x="{WIDTH - MARGIN}" y="52" text-anchor="middle">{high:.2f}</text>',
    ]
    return "".join([*parts, "</svg>"])


def _labels(places: Sequence[float]) -> Iterator[tuple[float, str]]:
    """The numbers of the neighbours, from 1; one for several that are near each other: "2-3"."""
    first = 0
    for index, x in enumerate(places):
        if index + 1 == len(places) or x - places[index + 1] >= LABEL_WIDTH:
            label = str(first + 1) if first == index else f"{first + 1}-{index + 1}"
            yield (places[first] + x) / 2, label
            first = index + 1
