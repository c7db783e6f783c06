"""Labels sentences in batches, as the predictor "adapting" does, for the commands that compare labels."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from allennlp.common.util import lazy_groups_of
from allennlp.data import DatasetReader
from allennlp.predictors import Predictor

from allennlp_metaner.commands.loading import task_reader
from allennlp_metaner.data.sentence import sentence_instance, words_and_tags
from allennlp_metaner.meta.adapter import adapts

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


def label_words(
    predictor: Predictor, reader: DatasetReader, sentences: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """
    # Parameters

    predictor : `Predictor`
    reader : `DatasetReader`
        The predictor's own. It must be of type "pseudo_tasks" if the predictor's model adapts; of equal
        sentences in its pool, none is excluded from the support.
    sentences : `Sequence[Sequence[str]]`
        One batch of sentences, as words.

    # Returns

    `List[Dict[str, Any]]`
        The predictor's output for each sentence.
    """
    if adapts(predictor._model):
        tasks = task_reader(reader, "the archive").tasks([(words, None) for words in sentences])
        outputs = predictor.predict_batch_instance(list(tasks))
    else:
        outputs = predictor.predict_batch_instance([sentence_instance(words) for words in sentences])
    return outputs
