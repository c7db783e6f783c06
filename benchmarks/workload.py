"""What is measured: an encoder, sentences, and tasks, for this package and for the published procedure."""

import os
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from allennlp.common import Params
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.models import Model
from published_procedure import PublishedTask, Sentence, Tagger

from allennlp_metaner.data.sentence import LABEL_NAMESPACE, words_and_tags
from allennlp_metaner.models.max_loss_tagger import MaxLossTagger
from allennlp_metaner.tools.build_small_encoder import build_small_encoder

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo" / "data"
ENCODER = ROOT / ".encoders" / "demo"
FROZEN_LAYERS = 3


class Workload(NamedTuple):
    """
    The same tasks twice: `tasks` for this package, `published_tasks` for the published procedure. `instances`
    are the English sentences.
    """

    encoder: str
    corpus: str
    instances: list[Instance]
    model: MaxLossTagger
    tasks: list[dict[str, Any]]
    published_model: Tagger
    published_tasks: list[PublishedTask]
    num_tokens: dict[str, float]


def load(num_tasks: int) -> Workload:
    """
    The encoder of `METANER_ENCODER`, or else that of the demo, and the English training sentences of
    `METANER_DATA`, or else those of the demo. Tasks are drawn with a fixed seed.
    """
    encoder = os.environ.get("METANER_ENCODER") or str(ENCODER)
    if encoder == str(ENCODER):
        build_small_encoder(ENCODER, sorted(DEMO.glob("*.bio")))
    os.environ["METANER_ENCODER"] = encoder
    import allennlp_metaner  # noqa: F401

    corpus = Path(os.environ.get("METANER_DATA", "data")) / "conll2003" / "eng.train"
    params = Params.from_file(str(ROOT / "training_configs" / "small" / "meta_en.jsonnet"))
    reader_params = params["dataset_reader"]
    if not corpus.exists():
        corpus = DEMO / "english.train.bio"
        reader_params["base_reader"].params.update(num_columns=2, separator=None, scheme="BIO")
    reader = DatasetReader.from_params(reader_params)
    instances = list(reader.read(str(corpus)))
    vocab = Vocabulary.from_instances(instances)
    chosen = random.Random(0).sample(instances, min(num_tasks, len(instances)))
    for instance in chosen:
        reader.apply_token_indexers(instance)
    batch = Batch(chosen)
    batch.index_instances(vocab)
    random.seed(0)
    tasks: list[dict[str, Any]] = batch.as_tensor_dict()["task"]  # type: ignore[assignment]
    torch.manual_seed(0)
    model = Model.from_params(vocab=vocab, params=params["model"])
    assert isinstance(model, MaxLossTagger)

    def sentence(instance: Instance) -> Sentence:
        words, tags = words_and_tags(instance)
        assert tags is not None
        return words, [vocab.get_token_index(tag, LABEL_NAMESPACE) for tag in tags]

    published = [
        (sentence(instance), [sentence(support) for support in instance["task"].support])  # type: ignore[attr-defined]
        for instance in chosen
    ]
    tagger = Tagger(encoder, vocab.get_vocab_size(LABEL_NAMESPACE), FROZEN_LAYERS)
    tokens = {
        part: sum(int(task[part]["tokens"]["tokens"]["wordpiece_mask"].sum()) for task in tasks) / len(tasks)
        for part in ("query", "support")
    }
    return Workload(encoder, str(corpus), instances, model, tasks, tagger, published, tokens)
