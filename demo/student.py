"""
The demo's last part: raw text of the five languages, labelled by the meta-trained model, teaches a student.

The student starts from its teacher's weights and sees no label that a person made. It labels without
retrieval and without adaptation, which makes it as fast as any tagger.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from segmentation import segment

if TYPE_CHECKING:
    from allennlp.models.archival import Archive
    from transformers import PreTrainedTokenizerFast


def raw_sentences(path: Path) -> list[list[str]]:
    """The tokens of a file with a raw sentence a line; Chinese ones are single characters."""
    from allennlp_metaner.data.raw_text import tokenize

    lines = path.read_text(encoding="utf-8").splitlines()
    return [[token for token, _, _ in tokenize(line)] for line in lines]


def write_words(path: Path, sentences: Iterable[list[str]], tokenizer: "PreTrainedTokenizerFast") -> None:
    """Write sentences as JSON lines of words, Chinese ones segmented as the test file is."""
    with path.open("w", encoding="utf-8") as file:
        for tokens in sentences:
            words = ["".join(word) for word in segment(tokens, tokenizer)]
            file.write(json.dumps({"words": words}, ensure_ascii=False) + "\n")


def train(teacher: Path, pseudo_labels: Path, directory: Path) -> "Archive":
    """As `allennlp train demo/student.jsonnet`; returns the student."""
    from allennlp.commands.train import train_model
    from allennlp.common import Params
    from allennlp.models import load_archive

    os.environ.update(METANER_START=str(teacher), METANER_PSEUDO_LABELS=str(pseudo_labels))
    train_model(Params.from_file("demo/student.jsonnet"), directory, force=True, file_friendly_logging=True)
    return load_archive(directory)
