"""The models behind the engine: they give tags to the words of sentences, and know nothing of documents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

from allennlp.common.util import JsonDict
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner.concurrency import exclusive
from allennlp_metaner.tagging.results import Neighbor


@dataclass(frozen=True)
class Tagged:
    """
    What a model says of a sentence.

    # Parameters

    tags : `list[str]`
        The BIO tag of each word.
    confidences : `list[float]`
        Of each entity, in order: the lowest probability among the tags of its words.
    neighbors : `list[Neighbor]`
        The sentences that the model was adapted to.
    """

    tags: list[str]
    confidences: list[float]
    neighbors: list[Neighbor] = field(default_factory=list)


class Backend(Protocol):
    """
    A model, however it is stored. Several threads may call it at the same time.
    """

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        """The tags of sentences, given as words, in their order. There are no empty sentences."""


class ArchiveBackend:
    """
    The model of an archive, adapted to each sentence or as it is: the predictor "adapting".

    # Parameters

    archive : `Archive`
    adapt : `bool`, optional (default = `None`)
        Whether the model is adapted to each sentence. `None`: what the archive's model says.
    """

    def __init__(self, archive: Archive, adapt: Optional[bool] = None) -> None:
        extra: dict[str, Any] = {} if adapt is None else {"adapt": adapt}
        self._predictor = Predictor.from_archive(archive, "adapting", extra_args=extra)

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        with exclusive():
            outputs = self._predictor.predict_batch_json([{"words": list(words)} for words in sentences])
        return [_tagged(output) for output in outputs]


def _tagged(output: JsonDict) -> Tagged:
    return Tagged(
        tags=output["tags"],
        confidences=[entity["confidence"] for entity in output["entities"]],
        neighbors=[
            Neighbor(found["words"], found["tags"], found["similarity"])
            for found in output.get("support", [])
        ],
    )
