"""The reader of pseudo labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from allennlp.data import DatasetReader, Instance, TokenIndexer
from allennlp.data.dataset_readers.dataset_reader import PathOrStr
from allennlp.data.fields import TensorField, TextField
from allennlp.data.token_indexers import SingleIdTokenIndexer

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.unlabelled.pseudo_labels import read_manifest, read_pseudo_labels
from allennlp_metaner.unlabelled.word_weights import NoWeights, WordWeights


@DatasetReader.register("pseudo_labels")
class PseudoLabelReader(DatasetReader):
    """
    Reads a folder that `allennlp metaner-pseudo-label` wrote, for the training of a student.

    An instance has the fields of a labelled sentence, with the teachers' best well-formed tags, and
    `probabilities`, shape `(num_words, num_labels)`, and `word_weights`, shape `(num_words,)`.

    Registered as a `DatasetReader` with name "pseudo_labels".

    # Parameters

    token_indexers : `Dict[str, TokenIndexer]`, optional (default = `{"tokens": SingleIdTokenIndexer()}`)
    word_weights : `WordWeights`, optional (default = every word counts the same)
    max_instances : `int`, optional (default = `None`)
        Read only the first ones.
    """

    def __init__(
        self,
        token_indexers: Optional[dict[str, TokenIndexer]] = None,
        word_weights: Optional[WordWeights] = None,
        max_instances: Optional[int] = None,
    ) -> None:
        super().__init__(max_instances=max_instances)
        self._token_indexers = token_indexers or {"tokens": SingleIdTokenIndexer()}
        self._word_weights = word_weights or NoWeights()

    def _read(self, file_path: PathOrStr) -> Iterator[Instance]:
        folder = Path(file_path)
        labels = read_manifest(folder)["labels"]
        for sentence in read_pseudo_labels(folder):
            instance = sentence_instance(sentence.words, [labels[index] for index in sentence.tags.tolist()])
            # Padding has probability 0 of every label and weight 0.
            instance.add_field("probabilities", TensorField(sentence.probabilities))
            instance.add_field("word_weights", TensorField(self._word_weights(sentence)))
            yield instance

    def apply_token_indexers(self, instance: Instance) -> None:
        text = instance["tokens"]
        assert isinstance(text, TextField)
        text.token_indexers = self._token_indexers
