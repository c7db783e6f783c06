"""kNN-NER: the votes of similar words, against plain Python; alone, with constraints and with adaptation."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, Instance, TokenIndexer, Vocabulary
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.training.optimizers import AdamOptimizer

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.meta.inner_loop import InnerLoop
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.nearest_words import NearestWords
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.tasks.task_field import TaskField

QUERIES = [
    (["Maria", "visited", "Londons", "."], ["B-PER", "O", "B-LOC", "O"]),
    (["Acme", "won"], ["B-ORG", "O"]),
]
SUPPORT = [
    (["Peter", "Smith", "visited", "Paris", "."], ["B-PER", "I-PER", "O", "B-LOC", "O"]),
    (["Berlin"], ["B-LOC"]),
    (["The", "club", "won"], ["O", "B-ORG", "O"]),
]


@pytest.fixture(scope="module")
def parts(tiny_word_encoder: str) -> SimpleNamespace:
    indexer = TokenIndexer.by_name("word_transformer")(model_name=tiny_word_encoder)

    def instance(words: list[str], tags: list[str]) -> Instance:
        made = sentence_instance(words, tags)
        made["tokens"].token_indexers = {"tokens": indexer}  # type: ignore[attr-defined]
        return made

    support = [instance(*sentence) for sentence in SUPPORT]
    # The tasks' support sets are of different sizes.
    tasks = [
        Instance({**query.fields, "task": TaskField(query, own)})
        for query, own in zip([instance(*q) for q in QUERIES], (support, support[:2]), strict=True)
    ]
    vocab = Vocabulary.from_instances(support)
    batch = Batch(tasks)
    batch.index_instances(vocab)

    def make(**arguments: Any) -> MaxLossTagger:
        torch.manual_seed(3)
        embedder = WordTransformerEmbedder(tiny_word_encoder)
        return MaxLossTagger(vocab, BasicTextFieldEmbedder({"tokens": embedder}), **arguments).eval()

    return SimpleNamespace(make=make, vocab=vocab, tensors=batch.as_tensor_dict())


def plain_votes(
    query: list[float], words: list[list[float]], labels: list[int], number: int, temperature: float
) -> list[float]:
    """p_kNN of one word by the `number` nearest words."""
    neighbors = sorted((math.dist(query, word), label) for word, label in zip(words, labels, strict=True))
    votes = [0.0] * 9
    for distance, label in neighbors[:number]:
        votes[label] += math.exp(-distance / temperature)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize(("number", "temperature"), [(None, 0.5), (3, 2.0), (1, 1.0), (100, 1.0)])
def test_distributions(number: int | None, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def some(rows: int, lengths: list[int]) -> dict[str, Any]:
        mask = torch.tensor([[place < length for place in range(max(lengths))] for length in lengths])
        vectors = torch.randn(rows, max(lengths), 6, generator=generator)
        tags = torch.randint(9, mask.shape, generator=generator)
        return {"tokens": {"tokens": {"vectors": vectors, "mask": mask}}, "tags": tags}

    tasks = [
        {"query": some(1, [4]), "support": some(3, [5, 2, 4])},
        {"query": some(1, [2]), "support": some(1, [3])},
    ]
    nearest = NearestWords(temperature=temperature, num_words=number)
    found = nearest.queries(lambda tokens: tokens["tokens"]["vectors"], 9, tasks)
    assert all(made["tokens"] is task["query"]["tokens"] for made, task in zip(found, tasks, strict=True))
    for task, made in zip(tasks, found, strict=True):
        support = task["support"]
        mask = support["tokens"]["tokens"]["mask"]
        words = support["tokens"]["tokens"]["vectors"][mask].tolist()
        labels = support["tags"][mask].tolist()
        (query,) = task["query"]["tokens"]["tokens"]["vectors"].tolist()
        expected = [plain_votes(word, words, labels, number or len(words), temperature) for word in query]
        torch.testing.assert_close(made["neighbors"], torch.tensor([expected]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_mixture(weight: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 9, generator=generator)
    neighbors = torch.randn(2, 3, 9, generator=generator).softmax(dim=-1)
    neighbors[0, 0] = torch.eye(9)[4]
    expected = (1 - weight) * logits.softmax(-1) + weight * neighbors
    found = NearestWords(weight=weight).mixed(logits, neighbors)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-5, atol=1e-7)
    assert torch.isfinite(found).all()


def reference(model: MaxLossTagger, tasks: list[dict[str, Any]], weight: float) -> list[torch.Tensor]:
    """The mixture of each query, each task for itself, without a line of what is tested."""
    found = []
    for task in tasks:
        query, support = task["query"], task["support"]
        with torch.no_grad():
            embed = model.text_field_embedder
            own, others = embed(query["tokens"])[0], embed(support["tokens"])
            logits = model.classifier(own)
        there = support["tokens"]["tokens"]["mask"]
        words, labels = others[there].tolist(), support["tags"][there].tolist()
        votes = [plain_votes(word, words, labels, len(words), 0.7) for word in own.tolist()]
        found.append((1 - weight) * logits.softmax(-1) + weight * torch.tensor(votes)[:, : logits.size(-1)])
    return found


def test_model_without_adaptation(parts: SimpleNamespace) -> None:
    """In one batch, where sentences and support sets are padded."""
    model = parts.make(nearest_words=NearestWords(weight=0.6, temperature=0.7))
    output = model(**parts.tensors)
    expected = reference(model, parts.tensors["task"], 0.6)
    for row, mixture in enumerate(expected):
        found = output["logits"][row, : len(mixture)]
        torch.testing.assert_close(found.softmax(-1), mixture, rtol=1e-4, atol=1e-5)
        names = [parts.vocab.get_token_from_index(int(i), "labels") for i in mixture.argmax(-1)]
        assert output["tags"][row] == names
    alone = parts.make()(**parts.tensors)
    assert (alone["logits"].softmax(-1) - output["logits"].softmax(-1)).abs().max() > 0.05
    torch.testing.assert_close(alone["loss"], output["loss"])
    # Training goes on as it was, and has no tasks to look at.
    without_tasks = {key: value for key, value in parts.tensors.items() if key != "task"}
    assert model.train()(**without_tasks)["loss"] > 0
    with pytest.raises(ConfigurationError, match="nearest_words needs the support sets"):
        model.eval()(**without_tasks)


def test_with_constraints(parts: SimpleNamespace) -> None:
    model = parts.make(nearest_words=NearestWords(weight=1.0, temperature=0.7), constrain_decoding=True)
    for row in model(**parts.tensors)["tags"]:
        for before, tag in zip(["O", *row], row, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:]


def adaptation(rate: float, **arguments: Any) -> TestTimeAdaptation:
    return TestTimeAdaptation(InnerLoop(optimizer=Lazy(AdamOptimizer, lr=rate), num_steps=1), **arguments)


def test_with_adaptation(parts: SimpleNamespace) -> None:
    """The adapted model's probabilities, and the words of the model as it was."""
    tasks = parts.tensors["task"]
    model = parts.make(nearest_words=NearestWords(weight=0.6, temperature=0.7), adaptation=adaptation(1e-2))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = model.adapt_and_predict(tasks)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    adapted = parts.make(adaptation=adaptation(1e-2))
    alone = adapted.adapt_and_predict(tasks)
    unadapted = reference(model, tasks, 0.6)
    for output, own, plain, task in zip(found, alone, unadapted, tasks, strict=True):
        with torch.no_grad():
            votes = plain - 0.4 * model.classifier(model.text_field_embedder(task["query"]["tokens"]))[
                0
            ].softmax(-1)
        expected = 0.4 * own["logits"][0, : len(plain)].softmax(-1) + votes
        torch.testing.assert_close(
            output["logits"][0, : len(plain)].softmax(-1), expected, rtol=1e-3, atol=1e-4
        )
        assert (expected - plain).abs().max() > 1e-2


def test_adapts_to_the_nearest_alone(parts: SimpleNamespace) -> None:
    """The retriever may find more sentences for the votes than adaptation takes."""
    model = parts.make(adaptation=adaptation(1e-2, num_neighbors=1))
    first = [
        {
            **task,
            "support": {
                "tokens": {"tokens": {k: v[:1] for k, v in task["support"]["tokens"]["tokens"].items()}}
            }
            | {"tags": task["support"]["tags"][:1]},
        }
        for task in parts.tensors["task"]
    ]
    found = model.adapt_and_predict(parts.tensors["task"])
    every = parts.make(adaptation=adaptation(1e-2))
    expected, all_of_them = (
        every.adapt_and_predict(first),
        every.adapt_and_predict(parts.tensors["task"]),
    )
    for ours, theirs, others in zip(found, expected, all_of_them, strict=True):
        torch.testing.assert_close(ours["logits"], theirs["logits"], rtol=1e-4, atol=1e-5)
        assert (ours["logits"] - others["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, "weight=1.5 must be from 0 to 1"),
        ({"temperature": 0}, "temperature=0 must be more than 0"),
        ({"num_words": 0}, "num_words=0 must be at least 1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        NearestWords.from_params(Params(settings))


def test_bad_combinations(parts: SimpleNamespace) -> None:
    with pytest.raises(ConfigurationError, match=r"num_neighbors=0 must be .* adaptation\.enabled = false"):
        TestTimeAdaptation(num_neighbors=0)
    with pytest.raises(ConfigurationError, match="nearest_words needs a model of words"):
        parts.make(nearest_words=NearestWords(), subword_labels=True)
