from pathlib import Path
from typing import Any

import pytest

from allennlp_metaner.experiments.exposure import equal_data, sentences_per_epoch, sentences_shown
from allennlp_metaner.experiments.jobs import Training

FIXTURES = Path(__file__).parents[2] / "test_fixtures" / "data"
COLUMNS = {
    "type": "ner_columns",
    "token_indexers": {"tokens": {"type": "word_transformer", "model_name": "none"}},
}
TASKS = {"type": "pseudo_tasks", "base_reader": COLUMNS, "retriever": {"num_neighbors": 2}}


def config(reader: dict[str, Any], loader: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    path = str(FIXTURES / "conll2002_es.txt")
    return {
        "dataset_reader": reader,
        "data_loader": loader,
        "train_data_path": path,
        "trainer": {"num_epochs": 3, **trainer},
    }


def test_of_an_epoch() -> None:
    some = {"batches_per_epoch": 5, "batch_size": 8}
    assert sentences_per_epoch(config(TASKS, some, type="meta")) == 5 * 8 * 3
    shared = {**config(TASKS, some, type="meta"), "distributed": {"cuda_devices": [0, 1], "num_nodes": 3}}
    assert sentences_per_epoch(shared) == 2 * 3 * 5 * 8 * 3
    query_only = {"type": "meta", "meta_gradient": {"type": "query_only"}}
    assert sentences_per_epoch(config(TASKS, some, **query_only)) == 5 * 8
    bucket = {"batches_per_epoch": 5, "batch_sampler": {"type": "bucket", "batch_size": 24}}
    assert sentences_per_epoch(config(COLUMNS, bucket)) == 5 * 24
    # All of the file, which has six sentences, without loading any encoder.
    assert sentences_per_epoch(config(COLUMNS, {"batch_size": 4})) == 6
    assert sentences_per_epoch(config({**COLUMNS, "max_instances": 4}, {"batch_size": 4})) == 4
    assert sentences_per_epoch(config(TASKS, {"batch_size": 4}, type="meta")) == 6 * 3
    absent = {**config(COLUMNS, {"batch_size": 4}), "train_data_path": "absent.txt"}
    assert sentences_per_epoch(absent) is None


def test_with_what_it_starts_from() -> None:
    base = Training(config(COLUMNS, {"batch_size": 4}), "a", "base.jsonnet", 1, {})
    second = config(TASKS, {"batches_per_epoch": 2, "batch_size": 4}, type="meta")
    stage = Training(second, "b", "meta.jsonnet", 1, {}, base)
    assert sentences_shown(base) == 3 * 6
    assert sentences_shown(stage) == 3 * 6 + 3 * 2 * 4 * 3
    assert sentences_shown(stage, 1) == 3 * 6 + 2 * 4 * 3
    unknown = Training({"trainer": {"num_epochs": 1}}, "c", "x.jsonnet", 1, {})
    assert sentences_shown(Training(second, "b", "meta.jsonnet", 1, {}, unknown)) is None


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [(1000, 1009, True), (1000, 1020, False), (None, None, False), (5, None, False)],
)
def test_equal_data(first: Any, second: Any, equal: bool) -> None:
    assert equal_data(first, second) == equal_data(second, first) == equal
