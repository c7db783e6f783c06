import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from allennlp.common import Params, cached_transformers
from allennlp.common.checks import ConfigurationError
from transformers import AutoConfig, AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from allennlp_metaner.data.pretrained_files import pretrained_path
from allennlp_metaner.retrieval import sentence_encoder
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder, TransformerSentenceEncoder
from allennlp_metaner.retrieval.similarity_index import ExactIndex

MAX_LENGTH = 12
SENTENCES = [
    ["maria", "visited", "the", "river", "bank", "in", "berlin", "."],
    ["rain"],
    # One subword a word, and more than the limit.
    ["shares", "of", "acme", "rose", "1", "percent", ",", "globex", "fell", "2", "percent", "on", "monday"],
    ["the", "club", "won"],
    ["incomprehensibilities", "in", "london"],
    ["rain"],
]


def one_by_one(directory: str, sentences: list[list[str]], pooling: str) -> np.ndarray:
    """The plain loop: no batches, no padding, subwords word by word."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    vectors = []
    for words in sentences:
        subwords = [piece for word in words for piece in tokenizer.tokenize(word)][: MAX_LENGTH - 2]
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *subwords, "[SEP]"])
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        vector = hidden[0] if pooling == "cls" else hidden.mean(0)
        vectors.append((vector / vector.norm()).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("tokens_per_batch", [1, 30, 4096])
def test_encode_equals_the_plain_loop(tiny_encoder: str, pooling: str, tokens_per_batch: int) -> None:
    encoder = TransformerSentenceEncoder(
        tiny_encoder, pooling=pooling, max_length=MAX_LENGTH, tokens_per_batch=tokens_per_batch
    )

    vectors = encoder.encode(SENTENCES)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(tiny_encoder, SENTENCES, pooling), atol=1e-5)
    np.testing.assert_array_equal(vectors[1], vectors[5])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_hidden_states_of_an_inner_layer(tiny_encoder: str, pooling: str) -> None:
    encoder = TransformerSentenceEncoder(tiny_encoder, pooling=pooling, layer=1)
    final = TransformerSentenceEncoder(tiny_encoder, pooling=pooling)
    model = AutoModel.from_pretrained(tiny_encoder).eval()
    model.encoder.layer = model.encoder.layer[:1]
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)

    for words in SENTENCES:
        with torch.no_grad():
            hidden = model(**tokenizer([words], is_split_into_words=True, return_tensors="pt"))[0][0]
        vector = hidden[0] if pooling == "cls" else hidden.mean(0)
        np.testing.assert_allclose(encoder.encode([words])[0], vector / vector.norm(), atol=1e-5)
    assert encoder.fingerprint() != final.fingerprint()


def test_the_middle_layer(tiny_encoder: str) -> None:
    layers = AutoConfig.from_pretrained(tiny_encoder).num_hidden_layers
    middle = TransformerSentenceEncoder(tiny_encoder, layer="middle")
    by_number = TransformerSentenceEncoder(tiny_encoder, layer=max(1, layers // 2))

    np.testing.assert_array_equal(middle.encode(SENTENCES), by_number.encode(SENTENCES))
    assert middle.fingerprint() == by_number.fingerprint()


@pytest.mark.parametrize("layer", [0, -1, 100, "lowest"])
def test_a_layer_that_the_encoder_lacks_is_refused(tiny_encoder: str, layer: int) -> None:
    with pytest.raises(ConfigurationError, match=f"layer={layer!r} .*from 1 to "):
        TransformerSentenceEncoder(tiny_encoder, layer=layer).encode(SENTENCES)


def test_the_limit_cuts_a_sentence_after_its_first_subwords(tiny_encoder: str) -> None:
    encoder = TransformerSentenceEncoder(tiny_encoder, max_length=MAX_LENGTH)
    words = SENTENCES[2]

    whole, start, shorter = encoder.encode([words, words[: MAX_LENGTH - 2], words[: MAX_LENGTH - 3]])

    np.testing.assert_array_equal(whole, start)
    assert np.abs(whole - shorter).max() > 1e-3


def test_sentences_without_subwords_and_no_sentences(tiny_encoder: str) -> None:
    encoder = TransformerSentenceEncoder(tiny_encoder)

    vectors = encoder.encode([[], [" ", "\u00ad"], ["rain"]])

    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert encoder.encode([]).shape == (0, 16)
    assert encoder.encode([]).dtype == np.float32


def test_batches_do_not_decide_which_neighbors_are_chosen(tiny_encoder: str) -> None:
    rng = random.Random(3)
    words = ["maria", "peter", "acme", "berlin", "paris", "rain", "bank", "rose", "fell", "1", "2", "."]
    sentences = [rng.choices(words, k=rng.randint(1, 20)) for _ in range(60)]
    sentences += sentences[:20]
    large = TransformerSentenceEncoder(tiny_encoder).encode(sentences)
    small = TransformerSentenceEncoder(tiny_encoder, tokens_per_batch=25)
    chosen = ExactIndex().search(large, large, 3)[0]

    np.testing.assert_array_equal(chosen, ExactIndex().search(small.encode(sentences), large, 3)[0])
    for sentence, expected in zip(sentences[:15], chosen, strict=False):
        found = ExactIndex().search(large, small.encode([sentence]), 3)[0]
        np.testing.assert_array_equal(found[0], expected)


def test_random_state_and_training_mode_are_left_alone(tiny_encoder: str, tmp_path: Path) -> None:
    # A model that was not loaded before, and whose pooler must be drawn at random.
    directory = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    model = AutoModel.from_pretrained(directory, add_pooling_layer=False)
    model.save_pretrained(directory)
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    encoder = TransformerSentenceEncoder(str(directory))
    vectors = encoder.encode(SENTENCES)

    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())

    shared = cached_transformers.get(str(directory), make_copy=False).train()
    shared.embeddings.eval()
    modes = [module.training for module in shared.modules()]
    np.testing.assert_array_equal(encoder.encode(SENTENCES), vectors)
    assert [module.training for module in shared.modules()] == modes


def test_fingerprint_names_what_the_vectors_depend_on(tiny_encoder: str, tmp_path: Path) -> None:
    original = TransformerSentenceEncoder(tiny_encoder)
    fingerprint = original.fingerprint()
    original.encode(SENTENCES)
    assert original.fingerprint() == fingerprint
    assert TransformerSentenceEncoder(tiny_encoder, tokens_per_batch=7).fingerprint() == fingerprint
    assert TransformerSentenceEncoder(tiny_encoder, max_length=64).fingerprint() != fingerprint
    assert TransformerSentenceEncoder(tiny_encoder, pooling="mean").fingerprint() != fingerprint

    def changed(name: str) -> tuple[Path, AutoModel]:
        directory = Path(shutil.copytree(tiny_encoder, tmp_path / name))
        return directory, AutoModel.from_pretrained(directory)

    directory, model = changed("same")
    assert TransformerSentenceEncoder(str(directory)).fingerprint() == fingerprint
    directory, model = changed("weights")
    with torch.no_grad():
        model.encoder.layer[4].output.dense.weight[0, 0] += 1e-3
    model.save_pretrained(directory)
    assert TransformerSentenceEncoder(str(directory)).fingerprint() != fingerprint
    directory, model = changed("config")
    config = AutoConfig.from_pretrained(directory)
    config.hidden_act = "relu"
    config.save_pretrained(directory)
    assert TransformerSentenceEncoder(str(directory)).fingerprint() != fingerprint
    directory, model = changed("tokenizer")
    AutoTokenizer.from_pretrained(tiny_encoder, do_lower_case=False).save_pretrained(directory)
    assert TransformerSentenceEncoder(str(directory)).fingerprint() != fingerprint


def test_a_random_pooler_is_not_part_of_the_fingerprint(tiny_encoder: str, tmp_path: Path) -> None:
    fingerprints = set()
    for seed in (1, 2):
        directory = shutil.copytree(tiny_encoder, tmp_path / str(seed))
        AutoModel.from_pretrained(directory, add_pooling_layer=False).save_pretrained(directory)
        torch.manual_seed(seed)
        fingerprints.add(TransformerSentenceEncoder(str(directory)).fingerprint())
    assert len(fingerprints) == 1


def test_archived_encoder_is_loaded_before_its_directory_vanishes(tiny_encoder: str, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_encoder, tmp_path / "source"))
    pretrained_path(str(directory), tmp_path / "run")
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "run", tmp_path / "unpacked")
    params = Params({"model_name": str(directory)})
    encoder = SentenceEncoder.from_params(params, serialization_dir=str(tmp_path / "unpacked"))
    shutil.rmtree(tmp_path / "unpacked")

    original = TransformerSentenceEncoder(tiny_encoder)
    assert encoder.fingerprint() == original.fingerprint()
    np.testing.assert_array_equal(encoder.encode(SENTENCES), original.encode(SENTENCES))


def test_a_model_outside_an_archive_is_loaded_lazily() -> None:
    encoder = TransformerSentenceEncoder("no-such-model")
    with pytest.raises(OSError, match="no-such-model"):
        encoder.fingerprint()


def test_a_device_of_its_own_gets_a_copy(tiny_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TransformerSentenceEncoder(tiny_encoder)
    expected = encoder.encode(SENTENCES)
    # Another device by name, the same by computation.
    monkeypatch.setattr(sentence_encoder, "encoding_device", lambda _: torch.device("cpu", 0))
    np.testing.assert_array_equal(encoder.encode(SENTENCES), expected)
    first = encoder._copy
    np.testing.assert_array_equal(encoder.encode(SENTENCES), expected)
    assert first is encoder._copy is not None
    assert first[1] is not cached_transformers.get(tiny_encoder, make_copy=False)


def test_the_device_is_that_of_the_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device, cpu = sentence_encoder.encoding_device, torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device(None) == device(-1) == cpu
    assert device(1) == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda number: [0, 1_000_000][number])
    assert device(None) == torch.device("cuda:1")
    assert device(-1) == cpu
    assert not caplog.records
    # An archive that names a GPU, on a machine without one.
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device(0) == cpu
    assert "There is no GPU 0" in caplog.text


def test_limits_and_pooling_are_checked(tiny_encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="pooling='max'"):
        TransformerSentenceEncoder(tiny_encoder, pooling="max")
    assert TransformerSentenceEncoder(tiny_encoder, max_length=160).encode([["a"] * 200]).shape == (1, 16)
    for max_length in (2, 161):
        with pytest.raises(ConfigurationError, match=f"max_length={max_length}"):
            TransformerSentenceEncoder(tiny_encoder, max_length=max_length).fingerprint()


def test_position_limit_minds_the_offset_of_roberta(tiny_encoder: str, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_encoder, tmp_path / "roberta"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=14,
        pad_token_id=1,
        type_vocab_size=2,
    )
    RobertaModel(config).save_pretrained(directory)
    # Read as BERT's: only the model is RoBERTa's.
    tokenizer.save_pretrained(directory)

    assert TransformerSentenceEncoder(str(directory), max_length=12).encode([["a"] * 50]).shape == (1, 16)
    with pytest.raises(ConfigurationError, match="12 positions"):
        TransformerSentenceEncoder(str(directory), max_length=13).encode([["a"] * 50])
