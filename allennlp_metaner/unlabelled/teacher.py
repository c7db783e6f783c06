"""Teachers label text: shard by shard, so that an interrupted run goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from allennlp.common import Tqdm
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import lazy_groups_of
from allennlp.data import Batch, DatasetReader, Instance
from allennlp.models import Archive, Model
from allennlp.nn.util import move_to_device
from safetensors.torch import load_file

from allennlp_metaner.atomic import write_whole
from allennlp_metaner.data.sentence import LABEL_NAMESPACE, sentence_instance
from allennlp_metaner.meta.test_time_adaptation import adaptable, adapts
from allennlp_metaner.models.decoding import Decoder
from allennlp_metaner.models.frozen_outputs import token_embedders
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader
from allennlp_metaner.unlabelled.pseudo_labels import (
    SENTENCES_PER_SHARD,
    TOGETHER,
    serialized,
    shard_file,
    type_shares,
)

SENTENCES_PER_BATCH = 32


class Teacher:
    """
    A trained tagger that says how probable every label of every word is, adapted to each sentence or not.

    # Parameters

    archive : `Archive`
    adapt : `bool`, optional (default = `None`)
        Whether the model is adapted. `None`: what the model's adaptation says.
    cuda_device : `int`, optional (default = `-1`)

    # Raises

    `ConfigurationError`, if the model is to be adapted and its reader retrieves nothing.
    """

    def __init__(self, archive: Archive, adapt: Optional[bool] = None, cuda_device: int = -1) -> None:
        self.model: Model = archive.model
        self.reader: DatasetReader = archive.validation_dataset_reader
        self.adapts = adapts(self.model, adapt)
        if self.adapts and not isinstance(self.reader, PseudoTaskReader):
            raise ConfigurationError(
                f"the teacher's sentences are read by {type(self.reader).__name__}, which retrieves nothing "
                "to adapt to: switch adaptation off, or give an archive whose validation_dataset_reader is "
                "of type 'pseudo_tasks'"
            )
        self._cuda_device = cuda_device
        self.model.eval()

    @property
    def labels(self) -> list[str]:
        """The label of every index."""
        names = self.model.vocab.get_index_to_token_vocabulary(LABEL_NAMESPACE)
        return [names[index] for index in range(len(names))]

    @property
    def source_shares(self) -> Optional[dict[str, float]]:
        """The entities a word of each type in the source data, if the archive has them."""
        return type_shares(self.reader.pool.tags) if isinstance(self.reader, PseudoTaskReader) else None

    def probabilities(self, sentences: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        """
        # Parameters

        sentences : `Sequence[Sequence[str]]`
            The words of each.

        # Returns

        `list[torch.Tensor]`
            Of each sentence, shape `(num_words, num_labels)`.
        """
        return [logits.softmax(dim=-1).float().cpu() for logits in self._by_length(sentences, self._logits)]

    def word_vectors(self, sentences: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        """
        The vectors of words as the teacher's encoder gives them without adaptation, see
        [`word_vectors`](../models/word_transformer_embedder.md#word_vectors).

        # Parameters

        sentences : `Sequence[Sequence[str]]`
            The words of each.

        # Returns

        `list[torch.Tensor]`
            Of each sentence, float32, shape `(num_words, dim)`.

        # Raises

        `ConfigurationError`, if the model's words are not embedded by a "word_transformer".
        """
        return [vectors.float().cpu() for vectors in self._by_length(sentences, self._vectors)]

    def _by_length(
        self,
        sentences: Sequence[Sequence[str]],
        compute: Callable[[Sequence[Sequence[str]]], list[torch.Tensor]],
    ) -> list[torch.Tensor]:
        """What `compute` gives for batches of like length, without padding and in the order of the text."""
        found: list[torch.Tensor] = [torch.empty(0)] * len(sentences)
        by_length = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        for indices in lazy_groups_of(by_length, SENTENCES_PER_BATCH):
            of_batch = compute([sentences[index] for index in indices])
            for index, rows in zip(indices, of_batch, strict=True):
                found[index] = rows[: len(sentences[index])]
        return found

    def _logits(self, sentences: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        if self.adapts:
            assert isinstance(self.reader, PseudoTaskReader)
            tensors = self._tensors(list(self.reader.tasks([(words, None) for words in sentences])))
            outputs = adaptable(self.model).adapt_and_predict(tensors["task"])
            return [output["logits"][0] for output in outputs]
        with torch.no_grad():
            return list(
                self.model(**self._tensors([sentence_instance(words) for words in sentences]))["logits"]
            )

    def _vectors(self, sentences: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        text_field_embedder: Any = getattr(self.model, "text_field_embedder", None)
        embedders = list(token_embedders(text_field_embedder))
        if len(embedders) != 1:
            raise ConfigurationError(
                "vectors of words are those of the teacher's encoder, but the model has "
                f"{len(embedders)} embedders of type 'word_transformer': give a teacher with one"
            )
        name, embedder = embedders[0]
        tensors = self._tensors([sentence_instance(words) for words in sentences])
        with torch.no_grad():
            return list(embedder.word_vectors(**tensors["tokens"][name]))

    def _tensors(self, instances: list[Instance]) -> dict[str, Any]:
        for instance in instances:
            self.reader.apply_token_indexers(instance)
        batch = Batch(instances)
        batch.index_instances(self.model.vocab)
        tensors: dict[str, Any] = move_to_device(batch.as_tensor_dict(), self._cuda_device)
        return tensors


def label_shards(folder: Path, part: str, teacher: Teacher, sentences: Sequence[Sequence[str]]) -> None:
    """
    Write what a teacher says of all sentences, but for the shards that are there already.

    # Parameters

    folder : `Path`
        Of the pseudo labels, see [`pseudo_labels`](./pseudo_labels.md).
    part : `str`
        The teacher's own folder in it.
    teacher : `Teacher`
    sentences : `Sequence[Sequence[str]]`
    """
    (folder / part).mkdir(exist_ok=True)
    with Tqdm.tqdm(total=len(sentences), desc=part, unit=" sentences") as progress:
        for shard, of_shard in shards(sentences):
            path = shard_file(folder, part, shard)
            if not path.exists():
                probabilities = torch.cat(teacher.probabilities(of_shard))
                if not probabilities.isfinite().all():
                    raise ConfigurationError(
                        f"{part} gives probabilities that are no numbers: its weights or the learning rate "
                        "of its adaptation are broken, and nothing can be learned from it"
                    )
                tags = well_formed(probabilities, [len(words) for words in of_shard], teacher.labels)
                content = {"probabilities": probabilities.half(), "tags": tags}
                write_whole(path, serialized(content))
            progress.update(len(of_shard))


def combine_shards(
    folder: Path, parts: Sequence[str], sentences: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, Any]:
    """
    Write what all teachers say together: mean probabilities, the best well-formed tags by them, and whether
    all have the same tag for a word.

    # Returns

    `dict[str, Any]`
        For the manifest: numbers of shards and words, the share of words on which all agree, and the entities
        of each type a word.
    """
    (folder / TOGETHER).mkdir(exist_ok=True)
    num_shards = num_words = num_agreed = 0
    tags_of_sentences: list[list[str]] = []
    for shard, of_shard in shards(sentences):
        each = [load_file(shard_file(folder, part, shard)) for part in parts]
        probabilities = torch.stack([tensors["probabilities"].float() for tensors in each]).mean(dim=0)
        lengths = [len(words) for words in of_shard]
        tags = well_formed(probabilities, lengths, labels)
        agreement = torch.stack([tensors["tags"] == each[0]["tags"] for tensors in each]).all(dim=0)
        content = {"probabilities": probabilities.half(), "tags": tags, "agreement": agreement}
        write_whole(shard_file(folder, TOGETHER, shard), serialized(content))
        num_shards, num_words = num_shards + 1, num_words + len(tags)
        num_agreed += int(agreement.sum())
        tags_of_sentences += [[labels[index] for index in own.tolist()] for own in tags.split(lengths)]
    return {
        "num_shards": num_shards,
        "num_words": num_words,
        "agreement": num_agreed / max(1, num_words),
        "entities_per_word": type_shares(tags_of_sentences),
    }


def well_formed(probabilities: torch.Tensor, lengths: Sequence[int], labels: Sequence[str]) -> torch.Tensor:
    """
    The best well-formed tags of some sentences.

    # Parameters

    probabilities : `torch.Tensor`
        Of the words of all sentences, end to end, shape `(num_words, num_labels)`.
    lengths : `Sequence[int]`
        The number of words of each sentence.
    labels : `Sequence[str]`
        The label of every index.

    # Returns

    `torch.Tensor`
        Indices, shape `(num_words,)`, `uint8`.
    """
    decode = Decoder(dict(enumerate(labels)), constrained=True)
    # Where rounding has left nothing, the logarithm must stay finite.
    logits = probabilities.clamp(min=1e-8).log()
    indices: list[int] = []
    for rows in logits.split(list(lengths)):
        mask = torch.ones(1, len(rows), dtype=torch.bool)
        indices += [decode.index(tag) for tag in decode(rows.unsqueeze(0), mask)[0]]  # type: ignore[arg-type]
    return torch.tensor(indices, dtype=torch.uint8)


def shards(sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, list[Sequence[str]]]]:
    """The number and the sentences of every shard."""
    return enumerate(lazy_groups_of(sentences, SENTENCES_PER_SHARD))
