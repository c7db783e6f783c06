"""The reader for files with one token a line."""

import random
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr

from allennlp_metaner.data.lines import read_lines
from allennlp_metaner.data.sentence_reader import Labelled, SentenceReader
from allennlp_metaner.data.tag_schemes import SCHEMES, check_tag, entity_type, map_labels, split_characters

DOCUMENT_START = "-DOCSTART-"
# Only ASCII: `str.split` would also cut at no-break and ideographic spaces, which occur inside words.
BLANKS = " \t"
BLANK_RUN = re.compile(f"[{BLANKS}]+")


@DatasetReader.register("ner_columns")
class ColumnReader(SentenceReader):
    """
    Reads files with one token a line in columns and a blank line after each sentence: CoNLL-2002,
    CoNLL-2003, WikiNEuRal, MultiNERD, Europeana Newspapers, MSRA and their like. Lines that start with
    `-DOCSTART-` end a sentence and are skipped. Words are left as they are.

    Instances are those of [`SentenceReader`](./sentence_reader.md#sentencereader).

    Registered as a `DatasetReader` with name "ner_columns".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    word_column : `int`, optional (default = `0`)
        Where the word is. Columns count from 0, or from -1 at the end of the line backwards.
    tag_column : `int`, optional (default = `-1`)
        Where the tag is.
    num_columns : `int`, optional (default = `None`)
        The number of columns of every line. If `None`, that of the first line.
    separator : `str`, optional (default = `None`)
        What separates columns, such as a tab. If `None`, any run of ASCII blanks and tabs.
    encoding : `str`, optional (default = `"utf-8"`)
    scheme : `str`, optional (default = `"BIO"`)
        The tag scheme of the file: "IO", "IOB1", "BIO" (also called "IOB2"), "IOE1", "IOE2", "BIOES" or
        "BILOU".
    label_map : `Dict[str, str]`, optional (default = `None`)
        New names of entity types; "O" drops a type: `{"MISC": "O"}`.
    entity_types : `List[str]`, optional (default = `None`)
        The types that may occur, after `label_map`. If `None`, all.
    sentence_end : `str`, optional (default = `None`)
        A token that ends a sentence, for files without blank lines.
    comment_prefix : `str`, optional (default = `None`)
        What comment lines start with, such as "#" in CoNLL-U files. They stand before the first word of a
        sentence. A line that starts so is still a word inside of a sentence, and before its first word if it
        has as many columns as the others (`num_columns`, or a line further up) and a tag of the scheme.
    characters : `bool`, optional (default = `False`)
        Split words into single characters.
    split : `str`, optional (default = `None`)
        "train" or "test": read one part of a file that has to be split at random.
    test_size : `Union[int, float]`, optional (default = `None`)
        With `split`: the size of the test part, in sentences (`int`) or as a share (`float`).
    split_seed : `int`, optional (default = `13`)
        With `split`: each seed is another split. The readers of both parts need the same. It is apart from
        `seed`, so that runs on different subsets can share a test set.
    fraction : `float`, optional (default = `1.0`)
        The share of the sentences to keep, at random and in the order of the file; at least one.
    seed : `int`, optional (default = `13`)
        With `fraction`: each seed is another subset.
    max_instances : `int`, optional (default = `None`)
        Read only the first ones of what is left.

    # Raises

    `ConfigurationError`, naming the argument or `file:line`, for a bad argument and for a file that is
    missing, empty, undecodable or malformed.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        word_column: int = 0,
        tag_column: int = -1,
        num_columns: Optional[int] = None,
        separator: Optional[str] = None,
        encoding: str = "utf-8",
        scheme: str = "BIO",
        label_map: Optional[dict[str, str]] = None,
        entity_types: Optional[list[str]] = None,
        sentence_end: Optional[str] = None,
        comment_prefix: Optional[str] = None,
        characters: bool = False,
        split: Optional[str] = None,
        test_size: Optional[Union[int, float]] = None,
        split_seed: int = 13,
        fraction: float = 1.0,
        seed: int = 13,
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(token_indexers, encoding, scheme, label_map, max_instances)
        if separator == "":
            raise ConfigurationError(
                "separator is empty. Give the text between columns, such as a tab, or null for any run of "
                "blanks"
            )
        _check_selection(split, test_size, fraction)
        self._word_column = word_column
        self._tag_column = tag_column
        self._num_columns = num_columns
        self._separator = separator
        self._entity_types = entity_types
        self._sentence_end = sentence_end
        self._comment_prefix = comment_prefix
        self._characters = characters
        self._split = split
        self._test_size = test_size
        self._split_seed = split_seed
        self._fraction = fraction
        self._seed = seed

    def _read(self, file_path: PathOrStr) -> Iterator[Instance]:
        sentences: Iterable[Labelled] = self._sentences(file_path)
        # A choice needs to know how many there are; without one, large files are read as a stream.
        if self._split or self._fraction < 1:
            sentences = self._choose(list(sentences), file_path)
        for place, words, tags in sentences:
            yield self.text_to_instance(words, tags, place)

    def _sentences(self, file_path: PathOrStr) -> Iterator[Labelled]:
        found = False
        for _, rows in groupby(self._rows(file_path), key=lambda row: row is None):
            sentence = [row for row in rows if row is not None]
            if sentence:
                found = True
                words = [word for word, _, _ in sentence]
                tags = self._bio([tag for _, tag, _ in sentence])
                if self._characters:
                    words, tags = split_characters(words, tags)
                yield Labelled(sentence[0][2], words, tags)
        if not found:
            raise ConfigurationError(
                f"{file_path}: no sentence found; the file is empty or has nothing but blank and "
                f"{DOCUMENT_START} lines. Check the path: one token a line is expected"
            )

    def _rows(self, file_path: PathOrStr) -> Iterator[Optional[tuple[str, str, str]]]:
        """Word, tag and place of each line; `None` where a sentence may end."""
        num_columns, defined_by = self._num_columns, "the argument num_columns"
        inside, first_line = False, ""
        for number, line in enumerate(read_lines(file_path, self._encoding), start=1):
            if not line.strip(BLANKS) or line.startswith(DOCUMENT_START):
                yield None
                inside = False
                continue
            place = f"{file_path}:{number}"
            columns = line.split(self._separator) if self._separator else BLANK_RUN.split(line.strip(BLANKS))
            if not inside and self._is_comment(line, columns, num_columns):
                continue
            if num_columns is None:
                num_columns, defined_by = len(columns), f"the first line with a token, {number}"
                first_line = line
            if len(columns) != num_columns:
                raise ConfigurationError(
                    f"{place}: {len(columns)} columns in {line!r}, but {num_columns} by {defined_by}. Mend "
                    f"the line, or the arguments separator={self._separator!r} and num_columns"
                    f"{self._about_comments(line, first_line)}"
                )
            word = _cell(columns, "word_column", self._word_column, place)
            tag = _cell(columns, "tag_column", self._tag_column, place)
            self._check_row(word, tag, place)
            yield word, tag, place
            inside = word != self._sentence_end
            if not inside:
                yield None

    def _is_comment(self, line: str, columns: list[str], num_columns: Optional[int]) -> bool:
        """Whether a line, where a sentence may begin, is a comment."""
        if not self._comment_prefix or not line.startswith(self._comment_prefix):
            return False
        looks_like_token = len(columns) == num_columns and -num_columns <= self._tag_column < num_columns
        return not (looks_like_token and SCHEMES[self._scheme].fullmatch(columns[self._tag_column]))

    def _about_comments(self, *lines: str) -> str:
        """Advice for a line that cannot be read, if one of these is like a comment."""
        if self._comment_prefix or not any(line.startswith("#") for line in lines):
            return ""
        return '. If lines that begin with # are comments, give comment_prefix="#"'

    def _check_row(self, word: str, tag: str, place: str) -> None:
        if not word:
            raise ConfigurationError(
                f"{place}: the word is empty. Correct the line or the argument word_column"
            )
        try:
            check_tag(tag, self._scheme)
        except ValueError as error:
            raise ConfigurationError(
                f"{place}: {error}. Correct the line, or the arguments tag_column={self._tag_column} and "
                f"scheme (one of {', '.join(SCHEMES)}){self._about_comments(word)}"
            ) from error
        if self._entity_types is not None:
            new_tag = map_labels([tag], self._label_map)[0]
            if entity_type(new_tag) not in (None, *self._entity_types):
                raise ConfigurationError(
                    f"{place}: the entity type of tag {tag!r} is not in entity_types={self._entity_types}. "
                    f'Add it there, or rename or drop it by label_map={{"{entity_type(tag)}": "O"}}'
                )

    def _choose(self, sentences: list[Labelled], file_path: PathOrStr) -> list[Labelled]:
        if self._split and self._test_size:
            size = self._test_size
            num_test = size if isinstance(size, int) else int(len(sentences) * size + 0.5)
            if not 0 < num_test < len(sentences):
                raise ConfigurationError(
                    f"{file_path}: test_size={size} leaves nothing to one of the parts, since the file has "
                    f"{len(sentences)} sentences. Give a number from 1 to {len(sentences) - 1}"
                )
            test = set(random.Random(self._split_seed).sample(range(len(sentences)), num_test))
            sentences = [s for i, s in enumerate(sentences) if (i in test) == (self._split == "test")]
        num_kept = max(1, int(len(sentences) * self._fraction + 0.5))
        kept = random.Random(self._seed).sample(range(len(sentences)), num_kept)
        return [sentences[i] for i in sorted(kept)]


def _cell(columns: list[str], argument: str, column: int, place: str) -> str:
    if not -len(columns) <= column < len(columns):
        raise ConfigurationError(
            f"{place}: there is no column {argument}={column} in {columns}. Give a number from "
            f"{-len(columns)} to {len(columns) - 1}, or correct the argument separator"
        )
    return columns[column]


def _check_selection(split: Optional[str], test_size: Optional[Union[int, float]], fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ConfigurationError(
            f"fraction={fraction} is not above 0 and at most 1. Give a share, such as 0.05"
        )
    if split not in (None, "train", "test"):
        raise ConfigurationError(
            f"split={split!r} is not one of 'train', 'test'. Leave it out for the whole file"
        )
    if (split is None) != (test_size is None):
        raise ConfigurationError(
            f"split={split!r} and test_size={test_size!r} go together. Give both, or none for the whole file"
        )
    if test_size is not None and not (test_size >= 1 if isinstance(test_size, int) else 0 < test_size < 1):
        raise ConfigurationError(
            f"test_size={test_size} is neither a number of sentences (1 or more) nor a share between 0 and 1"
        )
