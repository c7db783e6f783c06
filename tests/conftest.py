"""Fixtures that every test can use: a tiny random encoder, made here, so that no test downloads anything."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = """the a an in of on at and said is was by for from with to meets visited won beat joined city river
bank council club company paris berlin london madrid maria peter anna novak smith torres acme globex
french german open festival monday spring rain market shares rose fell percent ##s ##er ##ing ##ton
##land ##ia . , - ( ) : 1 2 3 4 5 6 7 8 9 0""".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_tiny_encoder(directory: Path, seed: int = 0, max_positions: int = 160) -> Path:
    """Write a random BERT (5 layers x 16) with a WordPiece tokenizer that can spell any ASCII word."""
    directory.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS)]
    pieces = list(dict.fromkeys(pieces))
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True).save_pretrained(str(directory))
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=max_positions,
        # A larger spread than BERT's 0.02, so that sentences get clearly different vectors.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(str(directory))
    return directory


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny random encoder: 5 layers x 16, dropout 0.1, WordPiece."""
    return str(make_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny"))
