"""Labels a file in batches, for the commands that compare labels."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from allennlp.common.util import lazy_groups_of
from allennlp.data import DatasetReader
from allennlp.predictors import Predictor

from allennlp_metaner.data.sentence import words_and_tags

# As many as the shipped configs evaluate together.
SENTENCES_PER_BATCH = 32


class Labelled(NamedTuple):
    """The words of a sentence, its gold tags if it has any, and the predictor's output for it."""

    words: list[str]
    gold: Optional[list[str]]
    output: dict[str, Any]


def label_file(predictor: Predictor, reader: DatasetReader, data_file: str) -> Iterator[Labelled]:
    """
    # Parameters

    predictor : `Predictor`
    reader : `DatasetReader`
    data_file : `str`

    # Returns

    `Iterator[Labelled]`
        The sentences of `data_file`, in order.
    """
    for batch in lazy_groups_of(reader.read(data_file), SENTENCES_PER_BATCH):
        for instance, output in zip(batch, predictor.predict_batch_instance(batch), strict=True):
            yield Labelled(*words_and_tags(instance), output)
