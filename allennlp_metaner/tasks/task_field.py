"""A pseudo task as a field of an instance."""

from collections.abc import Sequence
from typing import Any

from allennlp.data import Batch, Field, Instance, Vocabulary

from allennlp_metaner.concurrency import exclusive

Task = dict[str, Any]
"""The tensors of a task: the batches "query" (one sentence) and "support" (K sentences)."""


class TaskField(Field[Any]):
    """
    A query sentence and its support set. In a batch, tasks stay apart, in a list: query and support of each
    are padded to their own longest sentence and no further.

    # Parameters

    query : `Instance`
    support : `Sequence[Instance]`
        The K support sentences, labelled. Instances may be shared between tasks: each is indexed once.
    """

    def __init__(self, query: Instance, support: Sequence[Instance]) -> None:
        self.query = query
        self.support = list(support)

    def count_vocab_items(self, counter: dict[str, dict[str, int]]) -> None:
        """The query's labels are counted by the instance that this field belongs to."""
        for instance in self.support:
            instance.count_vocab_items(counter)

    @exclusive()
    def index(self, vocab: Vocabulary) -> None:
        # An instance that other tasks share says that it is indexed before it is.
        for instance in (self.query, *self.support):
            instance.index_fields(vocab)

    def get_padding_lengths(self) -> dict[str, int]:
        return {}

    def as_tensor(self, padding_lengths: dict[str, int]) -> Task:
        return {
            "query": Batch([self.query]).as_tensor_dict(),
            "support": Batch(self.support).as_tensor_dict(),
        }

    def batch_tensors(self, tensor_list: list[Task]) -> Any:
        return tensor_list

    def empty_field(self) -> "TaskField":
        return TaskField(Instance({}), [])

    def human_readable_repr(self) -> dict[str, Any]:
        return {
            "query": self.query.human_readable_dict(),
            "support": [instance.human_readable_dict() for instance in self.support],
        }
