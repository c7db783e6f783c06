"""Characters that not everything can take: lone surrogates, what an encoding lacks, words without end."""

import codecs
import re

SURROGATE = re.compile("[\ud800-\udfff]")

LONGEST_WORD = 200
"""
So many characters of a word go to tokenizers. The time that they take can grow with the square of a word's
length, and no name is so long.
"""


def without_surrogates(text: str) -> str:
    """
    The text with U+FFFD in place of lone surrogates: as long as before. JSON can carry them, but they have no
    form in UTF-8, so neither tokenizers nor files can.
    """
    return SURROGATE.sub("\ufffd", text)


def for_tokenizer(word: str) -> str:
    """What tokenizers get of a word: its first `LONGEST_WORD` characters, all with a form in UTF-8."""
    return without_surrogates(word[:LONGEST_WORD])


def encodable(text: str, encoding: str = "utf-8", is_json: bool = False) -> str:
    """
    The text without characters that an encoding lacks.

    # Parameters

    text : `str`
    encoding : `str`, optional (default = `"utf-8"`)
    is_json : `bool`, optional (default = `False`)
        Whether such characters become escapes of JSON (`\\ud800`), in which nothing is lost. If false, they
        become U+FFFD or question marks.
    """
    if is_json:
        return text.encode(encoding, "json_escapes").decode(encoding)
    return without_surrogates(text).encode(encoding, "replace").decode(encoding)


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = [f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)]
    return "".join(escapes), error.end


codecs.register_error("json_escapes", _json_escapes)
