"""Words to subwords, with the copy of the tokenizer that travels in an archive."""

from itertools import accumulate, chain, pairwise
from typing import Any, Optional

from allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer, TokenIndexer
from allennlp.data.token_indexers.token_indexer import IndexedTokenList
from allennlp.data.tokenizers import Token
from allennlp.data.vocabulary import Vocabulary

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.data.characters import for_tokenizer
from allennlp_metaner.data.pretrained_files import pretrained_path
from allennlp_metaner.data.raw_text import CHINESE_OR_KANA

WORD_START = "\u2581"
"""The piece that SentencePiece (XLM-R) sets before a word whose first piece does not begin with it."""

MOST_WORDS = 100_000
"""So many words are remembered with their subwords, in some 40 MB. Then all are forgotten."""


@TokenIndexer.register("word_transformer")
class WordTransformerIndexer(PretrainedTransformerMismatchedIndexer):
    """
    Splits every word into subwords, like AllenNLP's `pretrained_transformer_mismatched` and with the same
    output, but

    - every word has at least one subword: one for which the tokenizer gives nothing (a zero-width space, say)
      is the unknown subword, so that every word gets a vector and a label of its own;
    - the lone word-start mark that SentencePiece (XLM-R) sets before Chinese characters and kana is left out:
      running text has none between them, and it would carry the label in their place;
    - no sentence is cut and no windows are made: the `word_transformer` embedder does that, with overlap; but
      of a word, only the first [`LONGEST_WORD`](./characters.md#longest_word) characters count;
    - the subwords of a word are looked up once and remembered, and nothing is added to the vocabulary.

    Registered as a `TokenIndexer` with name "word_transformer".

    # Parameters

    model_name : `str`
        The name of a `transformers` model on the hub, or its directory.
    tokenizer_kwargs : `dict[str, Any]`, optional (default = `None`)
        Additional arguments for `AutoTokenizer.from_pretrained`.
    serialization_dir : `str`, optional (default = `None`)
        Given by AllenNLP, see [`pretrained_path`](./pretrained_files.md#pretrained_path).
    """

    def __init__(
        self,
        model_name: str,
        tokenizer_kwargs: Optional[dict[str, Any]] = None,
        serialization_dir: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        path = pretrained_path(model_name, serialization_dir)
        super().__init__(path, tokenizer_kwargs=tokenizer_kwargs, **kwargs)
        self._subwords: dict[str, list[int]] = {}
        self._word_start = [self._tokenizer.get_vocab().get(WORD_START)]
        tokenizer = self._allennlp_tokenizer
        self._start_ids = [token.text_id for token in tokenizer.single_sequence_start_tokens]
        self._end_ids = [token.text_id for token in tokenizer.single_sequence_end_tokens]

    @exclusive()
    def tokens_to_indices(self, tokens: list[Token], vocabulary: Vocabulary) -> IndexedTokenList:
        try:
            subwords = [self._subwords[token.text] for token in tokens]  # type: ignore[index]
        except KeyError:
            words = [for_tokenizer(token.ensure_text()) for token in tokens]
            self._remember(words)
            subwords = [self._subwords[word] for word in words]
        token_ids = [*self._start_ids, *chain.from_iterable(subwords), *self._end_ids]
        first = list(accumulate(map(len, subwords), initial=len(self._start_ids)))
        offsets = [(start, end - 1) for start, end in pairwise(first)]
        return {
            "token_ids": token_ids,
            "mask": [True] * len(offsets),
            "type_ids": [0] * len(token_ids),
            "offsets": offsets,
            "wordpiece_mask": [True] * len(token_ids),
        }

    def _remember(self, words: list[str]) -> None:
        unseen = [word for word in dict.fromkeys(words) if word not in self._subwords]
        if len(self._subwords) + len(unseen) > MOST_WORDS:
            self._subwords.clear()
            unseen = list(dict.fromkeys(words))
        if unseen:
            for word, subwords in zip(unseen, self._encoded(unseen), strict=True):
                if subwords[:1] == self._word_start and word[:1].isalpha() and CHINESE_OR_KANA.match(word):
                    subwords = subwords[1:]
                self._subwords[word] = subwords or [self._tokenizer.unk_token_id]

    def _encoded(self, words: list[str]) -> list[list[int]]:
        if not self._tokenizer.is_fast:
            return self._tokenizer(words, add_special_tokens=False)["input_ids"]
        # What `transformers` does around this takes most of the time where words are few.
        backend = self._tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch(words, add_special_tokens=False)]
