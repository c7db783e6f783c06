"""README.md of an exported tagger: what it is, how it was trained, what is known of it, how to use it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from allennlp_metaner.analysis.markdown import markdown_table
from allennlp_metaner.models.subword_labels import SPECIAL_LABELS
from allennlp_metaner.tagging.exported_tagger import SETTINGS_KEY, ExportSettings

Json = Mapping[str, Any]

_HEADER = """---
library_name: transformers
pipeline_tag: token-classification
tags:
- named-entity-recognition
- allennlp-metaner
---

# Named entity tagger

Finds the names in a sentence: it gives each word one of the BIO tags below. It was trained with
allennlp-metaner, and written by `allennlp metaner-export`.
"""

_TRAVELS = """## What travels, and what does not

- **Test-time adaptation does not travel.** This folder has the weights as training left them. Adapting them
  to each sentence before it is labelled, as allennlp-metaner can do, needs the archive, which also holds the
  labelled sentences that are retrieved for it. Figures that were measured with adaptation are not those of
  this folder.
- **Windows over long sentences** travel with allennlp-metaner, which labels sentences of more than
  {max_length} subwords, special ones included, in overlapping parts: each sees {overlap} subwords of the one
  before. They are not in the model: `transformers` alone, and `model.onnx`, see what they are given.
- {constrained}
"""

_CONSTRAINED = {
    True: "**Constrained decoding** (the best sequence of tags that is well-formed BIO) travels with "
    "allennlp-metaner alone. Elsewhere each word has its own best tag.",
    False: "**Decoding.** Each word has its own best tag, here as in the archive.",
}

_IGNORED = """- **Ignored types.** {types} count as O, as in the archive (`ignored_types`): the labels of
  these types are still outputs of the model, and their name in `id2label` is O.
"""

_SPECIAL = """- **Special labels.** {labels}, the labels of special and of non-first subwords, are outputs of
  the model, too. Their name in `id2label` is O.
"""

_USE = """## Use

With allennlp-metaner, each word gets the tag that the archive's predictor gives without adaptation:

```python
from allennlp_metaner import NameTagger
from allennlp_metaner.tagging.exported_tagger import ExportedTagger

document = NameTagger.load("FOLDER").predict("Anna Novak visited Paris.")  # raw text
[tagged] = ExportedTagger("FOLDER").tag([["Anna", "Novak", "visited", "Paris", "."]])  # words
```

or `allennlp metaner-label FOLDER text.txt`. Without it, with `transformers` alone:

```python
from transformers import pipeline

find = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")
find("Anna Novak visited Paris .")
```
"""

_ONNX = """`model.onnx` takes `input_ids` and `attention_mask` (int64, batch x subwords) and gives `logits`
(batch x subwords x labels). `NameTagger.load("FOLDER", runtime="onnxruntime")`, and `--runtime onnxruntime`
of the command, run it with the same tags.
"""

_DIFFERENCES = """## What differs in the plain pipeline

The tag of a word is that of its **first subword**; the others were not trained to say anything. The pipeline
works on text, and the tagger on words, so a few tags can differ:

- **Words.** Separate punctuation from words by blanks, and Chinese and Japanese characters from each other,
  as the training data has it. `aggregation_strategy="first"` then takes each word's first subword.
- **Chinese and Japanese.** Tokenizers of the SentencePiece kind (XLM-R) set a lone word-start mark before
  such a character if a blank is before it. The tagger leaves the mark out. The pipeline cannot, and the mark
  is then the first subword. Before other words, where both have the mark, `aggregation_strategy` may take
  mark and word for two words.
- **Words without subwords** (a zero-width space, say) are one unknown subword for the tagger. The pipeline
  passes over them.
- **Long sentences.** The pipeline cuts off what is beyond {max_length} subwords, without a word: cut longer
  sentences before, or give it `stride={overlap}`, which joins windows by another rule.
"""


def model_card(config: PretrainedConfig, training: Json, metrics: Json, onnx: bool, facts: Json) -> str:
    """
    # Parameters

    config : `PretrainedConfig`
        Of the exported model.
    training : `Mapping[str, Any]`
        The config of the archive.
    metrics : `Mapping[str, Any]`
        AllenNLP's metrics of the training; may be empty.
    onnx : `bool`
        Whether there is an ONNX file.
    facts : `Mapping[str, Any]`
        What else is known of the training.

    # Returns

    `str`
        Markdown.
    """
    settings = getattr(config, SETTINGS_KEY)
    parts = [
        _HEADER,
        f"Labels: {', '.join(f'`{label}`' for label in dict.fromkeys(config.id2label.values()))}.\n",
        _trained(training, facts),
        _figures(metrics),
        _travels(settings),
        _USE + ("\n" + _ONNX if onnx else ""),
        _DIFFERENCES.format(**settings),
    ]
    return "\n".join(parts)


def _travels(settings: ExportSettings) -> str:
    text = _TRAVELS.format(**{**settings, "constrained": _CONSTRAINED[settings["constrain_decoding"]]})
    if settings["ignored_types"]:
        text += _IGNORED.format(types=", ".join(settings["ignored_types"]))
    special = [label for label in settings["labels"] if label in SPECIAL_LABELS]
    return text + (_SPECIAL.format(labels=", ".join(special)) if special else "")


def _trained(training: Json, facts: Json) -> str:
    known = [*_settings(training), *facts.items()]
    rows = [[name, f"`{value}`"] for name, value in known if value is not None]
    return (
        f"## Training\n\n{markdown_table(['what', 'setting'], rows, left=2)}\n"
        "<details><summary>The whole config</summary>\n\n"
        f"```json\n{json.dumps(training, indent=2, ensure_ascii=False)}\n```\n\n</details>\n"
    )


def _settings(training: Json) -> Iterator[tuple[str, Any]]:
    model, trainer = training["model"], training.get("trainer", {})
    for embedder in model["text_field_embedder"].get("token_embedders", {}).values():
        yield "encoder", Path(embedder["model_name"]).name if "model_name" in embedder else None
    yield "training data", training.get("train_data_path")
    yield "validation data", training.get("validation_data_path")
    yield "model", model["type"]
    yield "trainer", trainer.get("type", "gradient_descent")
    yield "epochs", trainer.get("num_epochs")
    yield "optimizer", trainer.get("optimizer", {}).get("type")
    yield "learning rate", trainer.get("optimizer", {}).get("lr")
    for name in ("max_loss_weight", "frozen_layers", "dropout"):
        yield name.replace("_", " "), model.get(name)
    yield "seed", training.get("pytorch_seed")


def _figures(metrics: Json) -> str:
    """Precision, recall and F1 on validation data (of the epoch that was kept) and test data, if any."""
    rows = []
    for title, prefix in (("validation", "best_validation"), ("test", "test")):
        for name in sorted(metrics):
            start, _, kind = name.partition("_f1-measure-")
            if start == prefix and kind:
                figures = [metrics[f"{prefix}_{m}-{kind}"] for m in ("precision", "recall", "f1-measure")]
                rows.append([title, kind, *(f"{100 * figure:.2f}" for figure in figures)])
    if not rows:
        return "## Figures\n\nNone are known: the archive lay beside no `metrics.json` of its training.\n"
    body = markdown_table(["data", "type", "precision", "recall", "F1"], rows, left=2)
    return f"## Figures\n\nOf whole entities, in percent, measured in training without adaptation:\n\n{body}"
