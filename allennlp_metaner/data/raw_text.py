"""From raw text to words with character offsets, and back."""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

import regex
from icu4py.breakers import WordBreaker

from allennlp_metaner.data.characters import without_surrogates

BLANK = re.compile(r"[\s\u200b]+")
"""What stands between words. Khmer and Burmese set zero-width spaces there."""

# Radicals, CJK punctuation, kana, ideographs with extensions, full-width punctuation and half-width kana.
# Full-width letters and digits are left out: they form words.
CHINESE_OR_KANA = re.compile(
    "([\u2e80-\u2fdf\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff])"
)

# Every pattern here and below looks at its neighbours before it runs along them, so that all of them take
# time linear in the text.
#
# Where Unicode splits and we do not, since the CoNLL corpora have New-York, 6-4, 1996-08-22, AT&T, 12:30, 1/2
# and 80'erne as one word each: there is no end of a word before or after a match.
GLUE = regex.compile(
    r"""
      (?<=\w|\p{Lu}\.)(?:[\u05be\u2010\u2011&]|-'?)(?=\w)     # also rock-'n-roll
    | (?<=\w)(?:['\u2019](?=\w)|/(?=\d))
    | (?<=\p{L})\+(?=\p{L})                             # I+D
    | (?<=\d):(?=\d)
    """,
    regex.VERBOSE,
)
# Where Unicode joins and we do not: both ends of a match are ends of words.
SPLIT = regex.compile(
    r"""
      (?<=\w)['\u2019][sS](?![\w-])           # Peter's
    | (?<=[\p{Ll}\p{M}])\.(?=\p{Lu})          # a full stop without a blank: left.Then
    | (?<=\w):(?=\p{L})                       # note:this
    | (?<!\w)_++ | (?<!_)_++(?!\w)            # _emphasis_
    """,
    regex.VERBOSE,
)
# French l'Élysée and qu'il, Italian dell'Utri are two words each, O'Neill and aujourd'hui are one. The end of
# each repetition is the end of a word.
ELISIONS = regex.compile(
    r"""
    (?<![\w'\u2019-])
    ((?i:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu|(?:d|n|qu)ell|[ds]?all|sull|un|gl)['\u2019](?=\p{L}))+
    """,
    regex.VERBOSE,
)
# There is no end of a word inside of a match.
WHOLE = regex.compile(
    r"""
      (?:(?<!\w)(?:(?:https?|ftp)://|www\.) | (?<![\w.-])[\w-]++(?:\.[\w-]++)++/)
      (?:[^\s\u200b<>"\u201c\u201d\u00ab\u00bb]*[^\s\u200b<>"\u201c\u201d\u00ab\u00bb.,;:!?'\u2019\u2026)\]}])?
    | (?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++                          # an e-mail address
    | (?<![\w@])@\w++
    | (?<![\w.])(?:\p{L}\p{M}*+(?:\p{L}\p{M}*+)?\.){2,}+(?![\p{L}\p{N}.])   # EE.UU., p.m.
    | (?<![\w.])[\p{Lu}\p{Ll}\p{Lt}]\p{M}*+\.(?![\w.])                      # J. Smith, p. 5
    | (?<!\w)(?:[MDS]rs?|[DS]ra|Srta|Ms|St[ao]?|[Pp]rof|Drs|[JS]r|[dms]rs?|dhr|mevr)\.(?!\w)
    | (?<!\S)['\u2019][kmnrstKMNRST](?![\w'\u2019.])                        # Dutch 't, English 's on its own
    | (?<!\p{Cf})\p{Cf}++\w                                                 # a direction mark, then a word
    | (?<!\w)\p{Lu}{1,3}\$                                                  # US$
    | \.{2,}+ | -{2,}+ | '' | ``
    | \w-(?!\S)                                                             # Noord- en Zuid-Holland
    | (?<![\w.)\]])[-+\u2212.]\d                                            # -5, .500
    | \p{L}\++(?!\w)                                                        # Canal+, C++
    | \d\.[\u00ba\u00aa]                                                    # 1.º
    | (?<!\S)[:;=8][-'o]?[()\[\]DPpo/\\|*](?!\S)                            # :-)
    """,
    regex.VERBOSE,
)


def tokenize(text: str) -> list[tuple[str, int, int]]:
    """
    Splits raw text of any language into words and punctuation, in time linear in its length.

    The base are Unicode's word boundaries (UAX 29) as ICU finds them, which knows the punctuation of all
    scripts, and has dictionaries for those without blanks: Thai, Lao, Khmer and Burmese. From there, words
    are made to be close to those of the CoNLL corpora, with hyphens, addresses and abbreviations in one piece
    and French elisions in two. Chinese and Japanese are split into single characters, as MSRA does.

    # Parameters

    text : `str`

    # Returns

    `list[tuple[str, int, int]]`
        Word, start and end in characters, so that `text[start:end] == word`, apart from lone surrogates, for
        which the word has U+FFFD. Every character is in exactly one word, but for blanks (also zero-width
        spaces), which are in none.
    """
    text = without_surrogates(text)
    ends = sorted(_ends(text))
    return [
        (text[start:end], start, end)
        for start, end in zip([0, *ends], ends, strict=False)
        if not BLANK.match(text, start, start + 1)
    ]


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


def _ends(text: str) -> set[int]:
    """Where words and blanks end."""
    # `segments` would count in UTF-16.
    ends = set(accumulate(map(len, WordBreaker(text, "und"))))
    for match in GLUE.finditer(text):
        ends.difference_update(range(match.start(), match.end() + 1))
    for match in SPLIT.finditer(text):
        ends.update(match.span())
    for match in ELISIONS.finditer(text):
        ends.update(match.ends(1))
    for match in WHOLE.finditer(text):
        ends.difference_update(range(match.start() + 1, match.end()))
    for match in _always_apart(text):
        ends.update(match.span())
    return ends - {0}


def _always_apart(text: str) -> Iterator[re.Match[str]]:
    # ICU takes a blank and an accent after it for one.
    yield from BLANK.finditer(text)
    yield from CHINESE_OR_KANA.finditer(text)
