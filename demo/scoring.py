"""The demo's test files, and how well they were labelled."""

from collections.abc import Sequence
from pathlib import Path

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.sentence import words_and_tags
from allennlp_metaner.data.tag_schemes import map_labels
from allennlp_metaner.nn.span_f1 import SpanF1


def read(path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The tokens and the gold tags of a file."""
    tokens, tags = zip(*map(words_and_tags, ColumnReader().read(path)), strict=True)
    return list(tokens), list(tags)


def f1(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], without_misc: bool) -> float:
    """Phrase-level F1 in per cent. Where the gold labels have no MISC, a predicted one counts as O."""
    metric = SpanF1()
    metric([map_labels(tags, {"MISC": "O"} if without_misc else {}) for tags in predicted], gold)
    return 100 * metric.get_metric()["f1-measure-overall"]
