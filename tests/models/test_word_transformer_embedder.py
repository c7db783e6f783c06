"""Words get one vector each, whatever the length of their sentence, and it is the one the encoder gives."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, Vocabulary
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.data.windows import windows
from allennlp_metaner.data.word_transformer_indexer import WordTransformerIndexer
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.models.word_transformer_embedder import WordTransformerEmbedder
from allennlp_metaner.nn.max_loss import token_losses

MAX_LENGTH, CONTEXT = 16, 6
# Of one to six subwords.
WORDS = ["paris", "the", "abc", "maria", "londons", "qwerty", "."]
TINY = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 60,
}
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def parts(tiny_word_encoder: str) -> SimpleNamespace:
    def embedder(**arguments: Any) -> WordTransformerEmbedder:
        return WordTransformerEmbedder(
            tiny_word_encoder, **{"max_length": MAX_LENGTH, "overlap": CONTEXT, **arguments}
        ).eval()

    return SimpleNamespace(
        name=tiny_word_encoder,
        make=embedder,
        words=embedder(),
        subwords=embedder(output="subwords"),
        # Without windows: 160 positions are enough for short sentences.
        plain=AutoModel.from_pretrained(tiny_word_encoder).eval(),
        indexer=WordTransformerIndexer(tiny_word_encoder),
    )


def sentence(length: int, offset: int = 0) -> list[str]:
    return [WORDS[(offset + i * i) % len(WORDS)] for i in range(length)]


def batch(
    indexer: WordTransformerIndexer, sentences: Sequence[Sequence[str]], vocab: Vocabulary | None = None
) -> dict[str, Any]:
    instances = [sentence_instance(words, ["O"] * len(words) if vocab else None) for words in sentences]
    for instance in instances:
        instance["tokens"].token_indexers = {"tokens": indexer}  # type: ignore[attr-defined]
    found = Batch(instances)
    found.index_instances(vocab or Vocabulary())
    return found.as_tensor_dict()


@torch.no_grad()
def embed(embedder: WordTransformerEmbedder, tensors: dict[str, Any]) -> torch.Tensor:
    return embedder(**tensors["tokens"]["tokens"])


@torch.no_grad()
def expected_subwords(parts: SimpleNamespace, token_ids: list[int]) -> torch.Tensor:
    """Every window alone through the plain encoder; of each, the vectors that it owns."""
    first, *content, last = token_ids
    vectors = []
    for number, window in enumerate(found := windows(len(content), MAX_LENGTH - 2, CONTEXT)):
        ids = torch.tensor([[first, *content[window.start : window.end], last]])
        hidden = parts.plain(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        start = 0 if number == 0 else 1 + window.keep - window.start
        end = len(hidden) if number == len(found) - 1 else -1
        vectors.append(hidden[start:end])
    return torch.cat(vectors)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=LENGTHS)
def test_every_word_has_the_vector_of_the_window_that_owns_it(
    parts: SimpleNamespace, lengths: list[int]
) -> None:
    sentences = [sentence(length, number) for number, length in enumerate(lengths)]
    tensors = batch(parts.indexer, sentences)
    words, subwords = embed(parts.words, tensors), embed(parts.subwords, tensors)
    inputs = tensors["tokens"]["tokens"]
    assert words.shape == (len(lengths), max(lengths), 16)
    assert subwords.shape == (*inputs["token_ids"].shape, 16)
    for row, length in enumerate(lengths):
        token_ids = inputs["token_ids"][row][inputs["wordpiece_mask"][row]].tolist()
        expected = expected_subwords(parts, token_ids)
        assert len(expected) == len(token_ids)
        assert torch.allclose(subwords[row, : len(token_ids)], expected, atol=1e-5)
        first = [offset[0] for offset in inputs["offsets"][row, :length].tolist()]
        assert len(set(first)) == length
        assert torch.allclose(words[row, :length], expected[first], atol=1e-5)


def test_windows_make_a_difference(parts: SimpleNamespace) -> None:
    """Otherwise the test above could not tell one window from another."""
    tensors = batch(parts.indexer, [sentence(40)])
    whole = embed(parts.make(max_length=160), tensors)
    assert not torch.allclose(embed(parts.words, tensors), whole, atol=1e-3)
    assert not torch.allclose(embed(parts.words, tensors), embed(parts.make(overlap=0), tensors), atol=1e-3)


def test_a_short_sentence_is_what_the_plain_encoder_gives(parts: SimpleNamespace) -> None:
    tensors = batch(parts.indexer, [["londons", "paris", "."], ["the"]])
    ids = parts.indexer._tokenizer(["londons paris .", "the"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = parts.plain(**ids).last_hidden_state
    found = embed(parts.words, tensors)
    assert tensors["tokens"]["tokens"]["token_ids"].tolist() == ids["input_ids"].tolist()
    # "londons" has two subwords.
    assert torch.allclose(found[0], hidden[0, [1, 3, 4]], atol=1e-5)
    assert torch.allclose(found[1, 0], hidden[1, 1], atol=1e-5)
    # A long neighbour in the batch changes nothing.
    mixed = embed(parts.words, batch(parts.indexer, [["londons", "paris", "."], sentence(40)]))
    assert torch.allclose(mixed[0, :3], found[0], atol=1e-5)


@pytest.mark.parametrize("output", ["words", "subwords"])
@pytest.mark.parametrize(
    "transformer",
    [
        BertModel(BertConfig(**TINY)),
        BertModel(BertConfig(**TINY, attn_implementation="eager")),
        BertModel(BertConfig(**TINY, position_embedding_type="relative_key")),
        RobertaModel(RobertaConfig(**TINY)),
        XLMRobertaModel(XLMRobertaConfig(**TINY)),
    ],
    ids=["bert", "eager bert", "bert with relative positions", "roberta", "xlm-roberta"],
)
def test_is_what_the_transformer_itself_gives(
    parts: SimpleNamespace, transformer: torch.nn.Module, output: str
) -> None:
    """Of padded sentences, and with the same gradients."""
    embedder = parts.make(output=output, max_length=40).double()
    embedder._embedder.transformer_model = transformer.double().eval()
    inputs = batch(parts.indexer, [sentence(length, length) for length in (3, 8, 5)])["tokens"]["tokens"]
    mask = inputs["wordpiece_mask"]
    hidden = transformer(input_ids=inputs["token_ids"], attention_mask=mask.long()).last_hidden_state
    if output == "words":
        mask = inputs["mask"]
        hidden = torch.stack(
            [own[first] for own, first in zip(hidden, inputs["offsets"][..., 0], strict=True)]
        )
    found = embedder(**inputs)
    assert found.shape == hidden.shape
    torch.testing.assert_close(found[mask], hidden[mask])
    weights = torch.randn_like(found[mask])
    parameters = [p for name, p in transformer.named_parameters() if "pooler" not in name]
    ours, theirs = (
        torch.autograd.grad((vectors[mask] * weights).sum(), parameters, materialize_grads=True)
        for vectors in (found, hidden)
    )
    assert sum(bool(gradient.any()) for gradient in theirs) > 30
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_that_of_the_transformer(parts: SimpleNamespace) -> None:
    """Mean and variance over many draws."""
    inputs = batch(parts.indexer, [["londons", "paris", "."]] * 500)["tokens"]["tokens"]
    embedder = parts.make().train()
    torch.manual_seed(0)
    with torch.no_grad():
        ours = embedder(**inputs)
        transformer = embedder._embedder.transformer_model
        theirs = transformer(inputs["token_ids"], inputs["wordpiece_mask"].long()).last_hidden_state
        theirs = theirs[:, inputs["offsets"][0, :, 0]]
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / 500).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= 5 * error).all()
    assert ours.var(dim=0).mean() == pytest.approx(theirs.var(dim=0).mean().item(), rel=0.1)
    assert ours.var(dim=0).min() > 0


def test_sentence_of_exactly_one_window(parts: SimpleNamespace) -> None:
    for length in (MAX_LENGTH - 3, MAX_LENGTH - 2, MAX_LENGTH - 1):
        tensors = batch(parts.indexer, [["the"] * length, ["paris"]])
        expected = expected_subwords(parts, tensors["tokens"]["tokens"]["token_ids"][0].tolist())
        assert torch.allclose(embed(parts.subwords, tensors)[0], expected, atol=1e-5)


@torch.no_grad()
def test_word_vectors(parts: SimpleNamespace) -> None:
    """Mean of layers, then mean of subwords, by a plain loop; words of padding are zero."""
    tensors = batch(parts.indexer, [sentence(4), sentence(2)])["tokens"]["tokens"]
    found = parts.words.word_vectors(**tensors, num_layers=2)
    assert found.shape == (2, 4, 16) and not found[1, 2:].any()
    for row, length in enumerate((4, 2)):
        ids = tensors["token_ids"][row][tensors["wordpiece_mask"][row]].unsqueeze(0)
        layers = parts.plain(ids, output_hidden_states=True).hidden_states
        for word in range(length):
            first, last = tensors["offsets"][row, word].tolist()
            vector = sum((layers[-1] + layers[-2])[0, position] / 2 for position in range(first, last + 1))
            torch.testing.assert_close(found[row, word], vector / vector.norm(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_word_vectors_of_a_long_sentence(parts: SimpleNamespace) -> None:
    """Words of the first window see that window alone, and later ones have vectors as well."""
    words = sentence(30)
    long = parts.words.word_vectors(**batch(parts.indexer, [words])["tokens"]["tokens"])[0]
    offsets = batch(parts.indexer, [words])["tokens"]["tokens"]["offsets"][0, :, 1]
    # The words that end before the window's own end; the next one may be cut by it.
    inside = int((offsets < MAX_LENGTH - 1).sum())
    ids = batch(parts.indexer, [words])["tokens"]["tokens"]["token_ids"]
    window = torch.cat([ids[:, : MAX_LENGTH - 1], ids[:, -1:]], dim=1)
    layers = torch.stack(parts.plain(window, output_hidden_states=True).hidden_states[-3:]).mean(dim=0)[0]
    for word in range(inside):
        first = 1 if word == 0 else int(offsets[word - 1]) + 1
        vector = layers[first : int(offsets[word]) + 1].mean(dim=0)
        torch.testing.assert_close(long[word], vector / vector.norm(), atol=1e-5, rtol=1e-5)
    assert 0 < inside < 30
    torch.testing.assert_close(long.norm(dim=1), torch.ones(30))


def test_gradients_reach_the_encoder_from_every_window(parts: SimpleNamespace) -> None:
    embedder = parts.make()
    tensors = batch(parts.indexer, [["the"] * 30 + ["qwerty"]])
    embedder(**tensors["tokens"]["tokens"])[0, -1, 0].backward()
    gradient = embedder._embedder.transformer_model.embeddings.word_embeddings.weight.grad
    used = parts.indexer._tokenizer("qwerty", add_special_tokens=False)["input_ids"]
    assert gradient[used].abs().sum() > 0


def test_every_word_of_a_long_sentence_is_labelled_and_counts_once(parts: SimpleNamespace) -> None:
    vocab = Vocabulary(non_padded_namespaces=["labels"])
    for tag in ("O", "B-PER", "I-PER"):
        vocab.add_token_to_namespace(tag, "labels")
    model = MaxLossTagger(vocab, BasicTextFieldEmbedder({"tokens": parts.make()}), max_loss_weight=0.0).eval()
    tensors = batch(parts.indexer, [sentence(60), sentence(3)], vocab)
    output = model(**tensors)
    assert [len(tags) for tags in output["tags"]] == [60, 3]
    losses = token_losses(output["logits"], tensors["tags"], output["mask"])
    # Eq. 3: each sentence is the mean over its words.
    expected = losses[0].sum() / 60 + losses[1].sum() / 3
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert (losses[0] > 0).all()
    assert output["mask"].sum(dim=1).tolist() == [60, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"output": "word"},
        {"overlap": MAX_LENGTH - 2},
        {"overlap": -1},
        {"max_length": 161},
        {"max_length": 2, "overlap": 0},
    ],
)
def test_bad_arguments(parts: SimpleNamespace, arguments: dict[str, Any]) -> None:
    name, value = next(iter(arguments.items()))
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}"):
        parts.make(**arguments)


def test_output_dim(parts: SimpleNamespace) -> None:
    assert parts.words.get_output_dim() == 16
