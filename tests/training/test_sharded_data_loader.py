"""The shares of all processes together are the batches of one, with the same masks, and nothing is lost."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader, DatasetReader, TensorDict, Vocabulary

from allennlp_metaner.training import sharded_data_loader
from allennlp_metaner.training.sharded_data_loader import ShardedDataLoader

LoaderMaker = Callable[..., ShardedDataLoader]
BUCKET = {"type": "bucket", "sorting_keys": ["tokens"]}


@pytest.fixture
def make_loader(tiny_encoder: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> LoaderMaker:
    """A loader of 40 sentences with masks, for a process of so many."""

    def make(rank: int = 0, num_processes: int = 1, **options: Any) -> ShardedDataLoader:
        monkeypatch.setattr(sharded_data_loader, "rank_and_size", lambda: (rank, num_processes))
        inner = {"type": "word_transformer", "model_name": tiny_encoder}
        indexer = {"type": "entity_masking", "indexer": inner, "probability": 0.5}
        reader = {"type": "ner_columns", "scheme": "IOB1", "token_indexers": {"tokens": indexer}}
        path = str(tiny_data / "conll2003/eng.train")
        loader = DataLoader.from_params(
            Params({"type": "sharded", **options}),
            reader=DatasetReader.from_params(Params(reader)),
            data_path=path,
        )
        assert isinstance(loader, ShardedDataLoader)
        loader.index_with(Vocabulary.from_instances(loader.iter_instances()))
        return loader

    return make


def rows(batch: TensorDict) -> list[list[int]]:
    """The subwords of the sentences of a batch, with their masks."""
    tokens: Any = batch["tokens"]
    ids, mask = tokens["tokens"]["token_ids"], tokens["tokens"]["wordpiece_mask"]
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]


def epochs(loader: ShardedDataLoader, number: int = 2) -> list[list[list[int]]]:
    random.seed(1)
    batches = [rows(batch) for _ in range(number) for batch in loader]
    assert len(batches) == number * len(loader)
    return batches


def together(shares: list[list[list[list[int]]]]) -> list[list[list[int]]]:
    """The batches of one process, from those of all."""
    found = []
    for parts in zip(*shares, strict=True):
        longest = max(map(len, parts))
        found.append([part[i] for i in range(longest) for part in parts if i < len(part)])
    return found


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4, "shuffle": True, "drop_last": True},
        {"batch_size": 4, "shuffle": True, "drop_last": True, "batches_per_epoch": 7},
        {"batch_size": 4},
        {"batch_sampler": {**BUCKET, "batch_size": 4}},
    ],
    ids=["shuffled", "endless", "in order", "buckets"],
)
def test_shares(make_loader: LoaderMaker, options: dict[str, Any], num_processes: int) -> None:
    shares = [
        epochs(make_loader(rank, num_processes, **Params(options).duplicate().as_dict()))
        for rank in range(num_processes)
    ]
    larger = Params(options).duplicate().as_dict()
    holder = larger.get("batch_sampler", larger)
    holder["batch_size"] *= num_processes
    expected = epochs(make_loader(**larger))
    assert together(shares) == expected
    assert expected[0] != expected[len(expected) // 2]


@pytest.mark.parametrize(("size", "num_processes"), [(1, 3), (13, 3), (19, 2), (39, 2), (3, 13), (40, 2)])
@pytest.mark.parametrize("sampled", [False, True])
def test_every_process_has_a_share_of_the_last_batch(
    make_loader: LoaderMaker, size: int, num_processes: int, sampled: bool
) -> None:
    options = {"batch_sampler": {**BUCKET, "batch_size": size}} if sampled else {"batch_size": size}
    shares = [
        epochs(make_loader(rank, num_processes, **Params(options).duplicate().as_dict()), number=1)
        for rank in range(num_processes)
    ]
    assert len({len(share) for share in shares}) == 1
    assert all(batch for share in shares for batch in share)
    assert sum(len(batch) for share in shares for batch in share) == 40


def test_what_follows_does_not_depend_on_the_share(make_loader: LoaderMaker) -> None:
    states = []
    for rank in range(2):
        epochs(make_loader(rank, 2, batch_size=3, shuffle=True))
        states.append(random.getstate())
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4, "num_workers": 2}, r"num_workers=2 with 'distributed'"),
        (
            {"batch_sampler": {"type": "max_tokens_sampler", "max_tokens": 9}},
            r"MaxTokensBatchSampler, which has no batch_size",
        ),
        (
            {"batch_size": 4, "max_instances_in_memory": 8},
            r"max_instances_in_memory .*Set data_loader\.drop_last",
        ),
        ({"batch_size": 4, "num": 41}, r"has 40 sentences, fewer than the 41 processes"),
    ],
)
def test_refusals(make_loader: LoaderMaker, options: dict[str, Any], message: str) -> None:
    number = options.pop("num", 2)
    with pytest.raises(ConfigurationError, match=message):
        make_loader(0, number, **options)
