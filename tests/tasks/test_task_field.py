"""A task in a batch: padded on its own, and its support sentences indexed once."""

from typing import Any
from unittest.mock import patch

import pytest
from allennlp.data import Batch, Instance, Vocabulary

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.tasks.task_field import TaskField


@pytest.fixture(scope="module")
def indexer(tiny_encoder: str) -> WordTransformerIndexer:
    return WordTransformerIndexer(tiny_encoder)


def sentence(indexer: WordTransformerIndexer, length: int, tag: str = "O") -> Instance:
    found = sentence_instance(["the"] * length, [tag] * length)
    found["tokens"].token_indexers = {"tokens": indexer}  # type: ignore[attr-defined]
    return found


def shape(batch: dict[str, Any]) -> tuple[int, ...]:
    tokens = batch["tokens"]["tokens"]
    assert tokens["mask"].shape == batch["tags"].shape
    # Two special tokens.
    assert tokens["token_ids"].shape == (len(batch["tags"]), batch["tags"].size(1) + 2)
    return tuple(batch["tags"].shape)


def test_every_task_is_padded_on_its_own(indexer: WordTransformerIndexer) -> None:
    lengths = [(3, [5, 2]), (30, [4, 4]), (1, [2, 40])]
    tasks = []
    for query, support in lengths:
        instance = sentence(indexer, query)
        task = TaskField(instance, [sentence(indexer, length) for length in support])
        tasks.append(Instance({**instance.fields, "task": task}))
    batch = Batch(tasks)
    batch.index_instances(Vocabulary.from_instances(tasks))
    tensors = batch.as_tensor_dict()
    assert [shape(task["query"]) for task in tensors["task"]] == [(1, 3), (1, 30), (1, 1)]
    assert [shape(task["support"]) for task in tensors["task"]] == [(2, 5), (2, 4), (2, 40)]
    # The queries as one batch, for models that do not adapt.
    assert shape(tensors) == (3, 30)


def test_shared_sentences_are_indexed_once(indexer: WordTransformerIndexer) -> None:
    shared = [sentence(indexer, 2), sentence(indexer, 3)]
    tasks = [Instance({"task": TaskField(sentence(indexer, 1), shared)}) for _ in range(4)]
    batch = Batch(tasks)
    vocab = Vocabulary.from_instances(tasks)
    with patch.object(indexer, "tokens_to_indices", wraps=indexer.tokens_to_indices) as calls:
        batch.index_instances(vocab)
        batch.index_instances(vocab)
    assert calls.call_count == 4 + 2


def test_vocabulary(indexer: WordTransformerIndexer) -> None:
    query = sentence(indexer, 1, "B-PER")
    task = TaskField(query, [sentence(indexer, 2, "B-LOC"), sentence(indexer, 1, "O")])
    vocab = Vocabulary.from_instances([Instance({**query.fields, "task": task})])
    # The query is counted once, with the fields that it shares with its instance.
    assert vocab._retained_counter is not None
    assert dict(vocab._retained_counter["labels"]) == {"B-PER": 1, "B-LOC": 2, "O": 1}


def test_empty_and_readable(indexer: WordTransformerIndexer) -> None:
    field = TaskField(sentence(indexer, 1), [sentence(indexer, 2)])
    readable = field.human_readable_repr()
    assert readable["query"]["tokens"] == ["the"]
    assert [support["tokens"] for support in readable["support"]] == [["the", "the"]]
    empty = field.empty_field()
    assert (empty.query.fields, empty.support) == ({}, [])
    assert field.get_padding_lengths() == {}
