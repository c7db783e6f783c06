"""The tagger: what it returns, what it counts, and its two losses."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, TokenIndexer, Vocabulary
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.nn.span_f1 import SpanF1

# Subwords: maria | london ##s | visited | q ##w ##er ##t ##y | .   and   paris
SENTENCES = [
    (["Maria", "Londons", "visited", "qwerty", "."], ["B-PER", "I-PER", "O", "B-LOC", "O"]),
    (["Paris"], ["B-LOC"]),
]
SPECIAL = ["[CLS]", "[SEP]", "X"]


@pytest.fixture(scope="module")
def parts(tiny_word_encoder: str) -> SimpleNamespace:
    indexer = TokenIndexer.by_name("word_transformer")(model_name=tiny_word_encoder)
    instances = [sentence_instance(words, tags) for words, tags in SENTENCES]
    for instance in instances:
        instance["tokens"].token_indexers = {"tokens": indexer}  # type: ignore[attr-defined]
    vocab = Vocabulary.from_instances(instances, tokens_to_add={"labels": SPECIAL})

    def batch(sentences: list[tuple[list[str], list[str]]]) -> dict[str, Any]:
        batch = Batch([instances[SENTENCES.index(sentence)] for sentence in sentences])
        batch.index_instances(vocab)
        return batch.as_tensor_dict()

    def make(output: str = "words", seed: int = 0, **arguments: Any) -> MaxLossTagger:
        torch.manual_seed(seed)
        windows = {key: arguments.pop(key) for key in ("max_length", "overlap") if key in arguments}
        embedder = WordTransformerEmbedder(tiny_word_encoder, output=output, **windows)
        return MaxLossTagger(vocab, BasicTextFieldEmbedder({"tokens": embedder}), **arguments).eval()

    return SimpleNamespace(make=make, vocab=vocab, batch=batch, tensors=batch(SENTENCES))


def without(tensors: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key not in keys}


def cross_entropy(logits: torch.Tensor, targets: list[int]) -> torch.Tensor:
    return functional.cross_entropy(logits, torch.tensor(targets), reduction="none")


def test_forward(parts: SimpleNamespace) -> None:
    model = parts.make()
    output = model(**parts.tensors)
    num_labels = parts.vocab.get_vocab_size("labels")
    assert output["logits"].shape == (2, 5, num_labels)
    assert output["mask"].tolist() == [[True] * 5, [True, False, False, False, False]]
    assert output["words"] == [words for words, _ in SENTENCES]
    best = output["logits"].argmax(dim=-1)
    names = [
        [parts.vocab.get_token_from_index(int(i), "labels") for i in row[:length]]
        for row, length in zip(best, (5, 1), strict=True)
    ]
    assert output["tags"] == [[tag if tag not in SPECIAL else "O" for tag in row] for row in names]
    assert set(model(**without(parts.tensors, "tags", "metadata"))) == {"logits", "mask", "tags"}


def test_losses(parts: SimpleNamespace) -> None:
    model = parts.make(max_loss_weight=2.0)
    output = model(**parts.tensors)
    gold = parts.tensors["tags"].tolist()
    first, second = (
        cross_entropy(output["logits"][row, :length], gold[row][:length]) for row, length in enumerate((5, 1))
    )
    mean = first.mean() + second.mean()
    maximum = first.max() + second.max()
    assert output["loss"].item() == pytest.approx((mean + 2 * maximum).item(), rel=1e-5)
    alone = [(each.mean() + 2 * each.max()).item() for each in (first, second)]
    assert output["losses"].tolist() == pytest.approx(alone, rel=1e-5)
    assert "losses" not in model.train()(**parts.tensors)
    model.eval()
    assert model.losses([parts.tensors]).item() == pytest.approx(output["loss"].item(), rel=1e-6)
    assert model.losses([parts.tensors], max_loss_weight=0.0).item() == pytest.approx(mean.item(), rel=1e-5)
    by_token = parts.make(max_loss_weight=2.0, loss_reduction="token")
    assert by_token.losses([parts.tensors]).item() == pytest.approx(
        (torch.cat([first, second]).mean() + 2 * maximum / 2).item(), rel=1e-5
    )


@pytest.mark.parametrize("loss_reduction", ["sentence", "token"])
@pytest.mark.parametrize("output", ["words", "subwords"])
def test_losses_of_several_batches(parts: SimpleNamespace, loss_reduction: str, output: str) -> None:
    """From one pass, in which they are padded; each is the loss that the batch has alone."""
    model = parts.make(output=output, subword_labels=output == "subwords", loss_reduction=loss_reduction)
    first, second = parts.batch(SENTENCES[:1]), parts.batch(SENTENCES[1:])
    batches = [second, parts.tensors, first, second]
    for weight in (None, 0.0):
        alone = torch.cat([model.losses([each], max_loss_weight=weight) for each in batches])
        together = model.losses(batches, max_loss_weight=weight)
        assert together.shape == (4,)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    model.losses(batches).sum().backward()
    gradient = model.classifier.weight.grad.clone()
    model.zero_grad()
    for each in batches:
        model.losses([each]).sum().backward()
    torch.testing.assert_close(gradient, model.classifier.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen_layers", [0, 3, 4, 5, None])
def test_prepared(parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, frozen_layers: int | None) -> None:
    """Batches that come with the output of the frozen layers have the same losses and logits."""
    model = parts.make(frozen_layers=frozen_layers)
    batches = [parts.batch(SENTENCES[1:]), parts.tensors, parts.batch(SENTENCES[:1])]
    prepared = model.prepared(batches)
    has_bottom = ["bottom" in batch["tokens"]["tokens"] for batch in prepared]
    assert has_bottom == [frozen_layers in (3, 4)] * 3
    torch.testing.assert_close(model.losses(prepared), model.losses(batches), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(prepared, batches, strict=True):
        torch.testing.assert_close(model(**ours)["logits"], model(**theirs)["logits"], rtol=1e-4, atol=1e-5)
        assert torch.equal(ours["tags"], theirs["tags"])
        assert "bottom" not in theirs["tokens"]["tokens"]
    # Of the frozen layers, nothing is left to do.
    encoder = model.text_field_embedder._token_embedders["tokens"]._embedder.transformer_model
    expected = model.losses(batches)
    for layer in encoder.encoder.layer[: frozen_layers if any(has_bottom) else 0]:
        monkeypatch.setattr(layer.intermediate, "forward", None)
    torch.testing.assert_close(model.losses(prepared), expected, rtol=1e-5, atol=1e-6)


def test_prepared_sentences_longer_than_the_window(parts: SimpleNamespace) -> None:
    model = parts.make(max_length=8, overlap=2)
    batches = [parts.batch(SENTENCES[1:]), parts.tensors]
    prepared = model.prepared(batches)
    assert not any("bottom" in batch["tokens"]["tokens"] for batch in prepared)
    torch.testing.assert_close(model.losses(prepared), model.losses(batches))
    assert "bottom" in model.prepared(batches[:1])[0]["tokens"]["tokens"]


def test_dropout_of_prepared_batches(parts: SimpleNamespace) -> None:
    """Every batch has dropout of its own also in the frozen layers, though it may be the same batch."""
    model = parts.make().train()
    first, second = (batch["tokens"]["tokens"]["bottom"] for batch in model.prepared([parts.tensors] * 2))
    assert not any(map(torch.equal, first, second))
    assert not any(vectors.requires_grad for vectors in first)


def test_metrics_are_counted_by_one_thread_at_a_time(parts: SimpleNamespace) -> None:
    """Adaptation labels several sentences at the same time."""
    model = parts.make()
    present, most, scored = [], [], []

    def slow(predicted: list[list[str]], gold: list[list[str]]) -> None:
        present.append(1)
        most.append(len(present))
        time.sleep(0.005)
        scored.extend(predicted)
        present.pop()

    model._metric = slow
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: model(**parts.tensors), range(6)))
    assert most == [1] * 6
    assert len(scored) == model._num_scored == 12


def test_metrics_count_what_is_labelled_and_nothing_else(parts: SimpleNamespace) -> None:
    model = parts.make()
    model.losses([parts.tensors]).backward()
    model(**without(parts.tensors, "tags"))
    empty = dict.fromkeys(model.get_metrics(), 0.0)
    assert model.get_metrics() == empty
    tags = model(**parts.tensors)["tags"]
    expected = SpanF1()
    expected(tags, [gold for _, gold in SENTENCES])
    assert model.get_metrics(reset=True) == expected.get_metric()
    assert model.get_metrics() == empty


def test_dropout_is_on_in_training_only(parts: SimpleNamespace) -> None:
    model = parts.make(dropout=0.5)
    assert torch.equal(model(**parts.tensors)["logits"], model(**parts.tensors)["logits"])
    model.train()
    assert not torch.equal(model(**parts.tensors)["logits"], model(**parts.tensors)["logits"])


@pytest.mark.parametrize("frozen_layers", [0, 3, 5, None])
def test_frozen_layers(parts: SimpleNamespace, frozen_layers: int | None) -> None:
    model = parts.make(frozen_layers=frozen_layers)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    below = ["embeddings.", "pooler.", *(f"encoder.layer.{i}." for i in range(frozen_layers or 0))]
    inside = "text_field_embedder.token_embedder_tokens._embedder.transformer_model."
    expected = {
        name
        for name, _ in model.named_parameters()
        if frozen_layers is not None and name.startswith(tuple(inside + part for part in below))
    }
    assert frozen == expected
    assert len(frozen) == (0 if frozen_layers is None else 7 + 16 * frozen_layers)
    model.losses([parts.tensors]).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in frozen or ".pooler." in name), name


@pytest.mark.parametrize(
    "arguments",
    [{"frozen_layers": 6}, {"frozen_layers": -1}, {"max_loss_weight": -1.0}, {"loss_reduction": "sum"}],
)
def test_bad_arguments(parts: SimpleNamespace, arguments: dict[str, Any]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}"):
        parts.make(**arguments)


def test_probabilities(parts: SimpleNamespace) -> None:
    model = parts.make()
    output = model.make_output_human_readable(model(**parts.tensors))
    softmax = output["logits"].softmax(dim=-1)
    assert [len(row) for row in output["probabilities"]] == [5, 1]
    for row, (tags, probabilities) in enumerate(zip(output["tags"], output["probabilities"], strict=True)):
        for word, (tag, probability) in enumerate(zip(tags, probabilities, strict=True)):
            index = parts.vocab.get_token_index(tag, "labels")
            assert probability == pytest.approx(softmax[row, word, index].item())


def test_constrained_decoding(parts: SimpleNamespace) -> None:
    free, constrained = parts.make(seed=3), parts.make(seed=3, constrain_decoding=True)
    inside = parts.vocab.get_token_index("I-PER", "labels")
    for model in (free, constrained):
        with torch.no_grad():
            model.classifier.bias[inside] += 100
    assert free(**parts.tensors)["tags"] == [["I-PER"] * 5, ["I-PER"]]
    assert constrained(**parts.tensors)["tags"][0] == ["B-PER", *["I-PER"] * 4]


def test_subword_labels(parts: SimpleNamespace) -> None:
    model = parts.make(output="subwords", subword_labels=True, max_loss_weight=0.0, loss_reduction="token")
    index = parts.vocab.get_token_to_index_vocabulary("labels")
    targets = [
        ["[CLS]", "B-PER", "I-PER", "X", "O", "B-LOC", "X", "X", "X", "X", "O", "[SEP]"],
        ["[CLS]", "B-LOC", "[SEP]"],
    ]
    logits = model.classifier(model.text_field_embedder(parts.tensors["tokens"]))
    losses = torch.cat(
        [
            cross_entropy(logits[row, : len(tags)], [index[tag] for tag in tags])
            for row, tags in enumerate(targets)
        ]
    )
    output = model(**parts.tensors)
    assert output["loss"].item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert model.losses([parts.tensors]).item() == pytest.approx(losses.mean().item(), rel=1e-5)
    # The words' own labels are those of their first subwords.
    assert torch.equal(output["logits"][0], logits[0, [1, 2, 4, 5, 10]])
    assert torch.equal(output["logits"][1, 0], logits[1, 1])
    assert [len(tags) for tags in output["tags"]] == [5, 1]
    assert not {tag for tags in output["tags"] for tag in tags} & set(SPECIAL)


def test_subword_labels_need_labels(parts: SimpleNamespace, tiny_word_encoder: str) -> None:
    vocab = Vocabulary()
    vocab.add_token_to_namespace("X", "labels")
    embedder = BasicTextFieldEmbedder(
        {"tokens": WordTransformerEmbedder(tiny_word_encoder, output="subwords")}
    )
    with pytest.raises(ConfigurationError, match=r"labels \[CLS\], \[SEP\] in the vocabulary.*tokens_to_add"):
        MaxLossTagger(vocab, embedder, subword_labels=True)


def test_the_adaptation_is_the_models(parts: SimpleNamespace) -> None:
    adaptation = TestTimeAdaptation()
    assert parts.make(adaptation=adaptation).adaptation is adaptation
    assert isinstance(parts.make().adaptation, TestTimeAdaptation)
