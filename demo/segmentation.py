"""
Chinese words out of single characters, by the encoder's own word pieces.

The test file is split into characters, but a tagger trained on English has only seen words, and the paper
labels segmented Chinese too. So the words are labelled, and their tags given to their characters.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Words = list[list[str]]
"""The words of a sentence, each as the tokens of the file that it is made of."""


def is_chinese(token: str) -> bool:
    """Whether a token is one Chinese character."""
    return len(token) == 1 and "\u4e00" <= token <= "\u9fff"


def running_text(tokens: Sequence[str]) -> str:
    """The sentence without blanks between Chinese characters."""
    return " ".join(
        "".join(run) if chinese else " ".join(run) for chinese, run in groupby(tokens, key=is_chinese)
    )


def segment(tokens: Sequence[str], tokenizer: "PreTrainedTokenizerFast") -> Words:
    """Cut every run of Chinese characters where the tokenizer does; every other token is a word."""
    words: Words = []
    for chinese, run in groupby(tokens, key=is_chinese):
        characters = list(run)
        starts = set(range(len(characters)))
        if chinese:
            encoded = tokenizer("".join(characters), add_special_tokens=False, return_offsets_mapping=True)
            starts = {0, *(start for start, _ in encoded["offset_mapping"] if start < len(characters))}
        borders = [*sorted(starts), len(characters)]
        words += [characters[start:end] for start, end in pairwise(borders)]
    return words


def spread(words: Words, tags: Sequence[str]) -> list[str]:
    """The BIO tags of the words' tokens: within a word, an entity goes on."""
    spread_tags = []
    for word, tag in zip(words, tags, strict=True):
        inside = "O" if tag == "O" else f"I-{tag[2:]}"
        spread_tags += [tag, *[inside] * (len(word) - 1)]
    return spread_tags
