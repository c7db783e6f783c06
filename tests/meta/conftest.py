"""A tagger on the tiny encoder in double precision, and tasks for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from allennlp.data import Batch, Instance, Vocabulary
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.tasks.task_field import Task, TaskField

TaggerMaker = Callable[..., MaxLossTagger]
TaskMaker = Callable[[int, int], list[Task]]


TAGGED_SENTENCES = [
    "Maria/B-PER Novak/I-PER visited/O Paris/B-LOC and/O Berlin/B-LOC on/O Monday/O ./O",
    "Peter/B-PER Smith/I-PER met/O Anna/B-PER in/O Madrid/B-LOC ./O",
    "Acme/B-ORG Bank/I-ORG won/O ./O",
    "the/O German/B-MISC bank/O Globex/B-ORG beat/O the/O French/B-MISC Open/I-MISC by/O 2/O -/O 1/O",
    "London/B-LOC City/B-ORG Council/I-ORG said/O rain/O fell/O ./O",
    "shares/O rose/O 5/O percent/O ./O",
    "Torres/B-PER joined/O Acme/B-ORG in/O London/B-LOC ./O",
    "Anna/B-PER",
]


@pytest.fixture(scope="session")
def tagged_sentences() -> list[tuple[list[str], list[str]]]:
    """Eight labelled sentences of 1 to 13 words: their words and their BIO tags."""
    pairs = [[token.rsplit("/", 1) for token in sentence.split()] for sentence in TAGGED_SENTENCES]
    return [([word for word, _ in sentence], [tag for _, tag in sentence]) for sentence in pairs]


@pytest.fixture(scope="session")
def instances(tiny_encoder: str, tagged_sentences: list[tuple[list[str], list[str]]]) -> list[Instance]:
    indexers = {"tokens": WordTransformerIndexer(tiny_encoder)}
    made = [sentence_instance(words, tags) for words, tags in tagged_sentences]
    for instance in made:
        instance["tokens"].token_indexers = indexers  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="session")
def vocab(instances: list[Instance]) -> Vocabulary:
    return Vocabulary.from_instances(instances)


@pytest.fixture(scope="session")
def make_tagger(tiny_encoder: str, vocab: Vocabulary) -> TaggerMaker:
    """Makes the same tagger every time, in double precision, with dropout in training mode."""

    def make(**options: Any) -> MaxLossTagger:
        embedder = BasicTextFieldEmbedder({"tokens": WordTransformerEmbedder(tiny_encoder)})
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return MaxLossTagger(vocab, embedder, **options).double()

    return make


@pytest.fixture(scope="session")
def make_tasks(instances: list[Instance], vocab: Vocabulary) -> TaskMaker:
    """Makes so many tasks with so many support sentences each."""

    def make(num_tasks: int, num_support: int) -> list[Task]:
        tasks = []
        for number in range(num_tasks):
            around = instances[number:] + instances[:number]
            batch = Batch([Instance({"task": TaskField(around[0], around[1 : 1 + num_support])})])
            batch.index_instances(vocab)
            tasks += batch.as_tensor_dict()["task"]
        return tasks

    return make
