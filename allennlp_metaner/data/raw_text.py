"""From raw text to words with character offsets, and back."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from allennlp_metaner.concurrency import exclusive

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer

# Radicals, CJK punctuation, kana, ideographs with extensions, full-width punctuation and half-width kana.
# Full-width letters and digits are left out: they form words.
CHINESE_OR_KANA = re.compile(
    "([\u2e80-\u2fdf\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff])"
)
# French l'Élysée and qu'il are two words each, O'Neill and aujourd'hui are one.
ELISION = r"(?i:(?:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu)['\u2019](?=[^\W\d_]))"


@exclusive()
def tokenize(text: str) -> list[tuple[str, int, int]]:
    """
    Splits raw text of any language into words and punctuation, close to how the CoNLL corpora do; Chinese
    and Japanese into single characters, as MSRA does.

    # Parameters

    text : `str`

    # Returns

    `list[tuple[str, int, int]]`
        Token, start and end in characters, so that `text[start:end] == token`. Blanks are in no token.
    """
    tokens = []
    for token in _tokenizer()(text):
        start = token.idx
        for piece in _pieces(token.text):
            if not piece.isspace():
                tokens.append((piece, start, start + len(piece)))
            start += len(piece)
    return tokens


def join(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """
    Joins words by single spaces.

    # Parameters

    words : `Sequence[str]`

    # Returns

    `tuple[str, list[tuple[int, int]]]`
        The text, and start and end of each word in it.
    """
    offsets = []
    start = 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), offsets


def _pieces(token: str) -> list[str]:
    return [piece for piece in CHINESE_OR_KANA.split(token) if piece]


@lru_cache(maxsize=1)
def _tokenizer() -> "Tokenizer":
    # Imported here, since spaCy takes seconds and only raw text needs it.
    import spacy
    from spacy.lang import char_classes, punctuation, tokenizer_exceptions
    from spacy.tokenizer import Tokenizer
    from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex

    lower, upper, letter = char_classes.ALPHA_LOWER, char_classes.ALPHA_UPPER, char_classes.ALPHA
    # spaCy's own rules without those for hyphens: CoNLL has New-York, 6-4 and 1996-08-22 as one word each.
    infixes = [
        *char_classes.LIST_ELLIPSES,
        *char_classes.LIST_ICONS,
        rf"(?<=[{lower}])\.(?=[{upper}])",
        rf"(?<=[{letter}]),(?=[{letter}])",
        rf"(?<=[{letter}0-9])[:<>=/](?=[{letter}])",
        r"--+|[\u2013\u2014]",
    ]
    return Tokenizer(
        spacy.blank("xx").vocab,
        rules=tokenizer_exceptions.BASE_EXCEPTIONS,
        prefix_search=compile_prefix_regex([*punctuation.TOKENIZER_PREFIXES, ELISION]).search,
        suffix_search=compile_suffix_regex(punctuation.TOKENIZER_SUFFIXES).search,
        infix_finditer=compile_infix_regex(infixes).finditer,
        url_match=tokenizer_exceptions.URL_MATCH,
    )
