"""Support sets come from the right sentences, and never from the query itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, Token, TokenIndexer, Vocabulary
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.data.dataset_readers import Conll2003DatasetReader
from allennlp.data.dataset_readers.dataset_reader import DistributedInfo

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.data.entity_masking_indexer import EntityMaskingIndexer
from allennlp_metaner.data.sentence import sentence_instance
from allennlp_metaner.retrieval.retriever import Retriever
from allennlp_metaner.retrieval.sentence_encoder import SentenceEncoder
from allennlp_metaner.retrieval.similarity_index import RandomIndex
from allennlp_metaner.tasks.pseudo_task_reader import PseudoTaskReader


class LetterEncoder(SentenceEncoder):
    """A sentence's vector is how often each letter occurs in it."""

    def __init__(self, version: str = "1") -> None:
        self.encoded: list[list[str]] = []
        self._version = version

    def encode(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        self.encoded += [list(words) for words in sentences]
        counts = [[" ".join(words).lower().count(chr(97 + i)) for i in range(26)] for words in sentences]
        vectors = np.array(counts, dtype=np.float32).reshape(len(sentences), 26) + 1e-3
        normed: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normed

    def fingerprint(self) -> str:
        return self._version


@pytest.fixture
def indexer(tiny_encoder: str) -> TokenIndexer:
    return TokenIndexer.by_name("word_transformer")(model_name=tiny_encoder)


@pytest.fixture
def base(indexer: TokenIndexer) -> ColumnReader:
    return ColumnReader({"tokens": indexer}, num_columns=4, scheme="IOB1")


@pytest.fixture
def train(tiny_data: Path) -> str:
    return str(tiny_data / "conll2003/eng.train")


@pytest.fixture
def other(tiny_data: Path) -> str:
    return str(tiny_data / "conll2003/eng.testb")


def reader(
    base: DatasetReader,
    encoder: LetterEncoder | None = None,
    retriever: dict[str, Any] | None = None,
    **arguments: Any,
) -> PseudoTaskReader:
    found = Retriever(encoder or LetterEncoder(), use_cache=False, **(retriever or {}))
    return PseudoTaskReader(base, found, **arguments)


def words(instance: Instance) -> list[str]:
    return [token.text for token in instance["tokens"]]  # type: ignore[attr-defined]


def support(instance: Instance) -> list[list[str]]:
    task = instance["task"]
    found = [words(sentence) for sentence in task.support]  # type: ignore[attr-defined]
    metadata = instance["metadata"].metadata["support"]  # type: ignore[attr-defined]
    assert [neighbor["words"] for neighbor in metadata] == found
    for sentence, neighbor in zip(task.support, metadata, strict=True):  # type: ignore[attr-defined]
        assert list(sentence["tags"].labels) == neighbor["tags"]
    return found


def nearest(queries: list[list[str]], pool: list[list[str]], same: bool) -> list[list[list[str]]]:
    """The two most similar sentences, by sorting everything."""
    similarities = LetterEncoder().encode(queries).astype(float) @ LetterEncoder().encode(pool).T.astype(
        float
    )
    if same:
        np.fill_diagonal(similarities, -np.inf)
    # Rounding must not order ties, which go by position.
    order = np.argsort(-similarities.round(6), axis=1, kind="stable")[:, :2]
    return [[pool[i] for i in row] for row in order]


def distinct(path: str, directory: Path, count: int = 15) -> str:
    """The first sentences of a file that differ, so that similarities are far from ties."""
    blocks = Path(path).read_text("utf-8").split("\n\n")
    found = directory / "distinct.txt"
    found.write_text("\n\n".join(list(dict.fromkeys(blocks))[:count]) + "\n", encoding="utf-8")
    return str(found)


def test_a_query_is_not_in_its_own_support(base: ColumnReader, train: str, tmp_path: Path) -> None:
    path = distinct(train, tmp_path)
    instances = list(reader(base).read(path))
    queries = [words(instance) for instance in instances]
    assert len(queries) == 15
    assert [support(instance) for instance in instances] == nearest(queries, queries, same=True)
    for instance, plain in zip(instances, base.read(path), strict=True):
        assert words(instance) not in support(instance)
        assert list(instance.fields) == ["tokens", "tags", "metadata", "task"]
        assert instance["tags"].labels == plain["tags"].labels  # type: ignore[attr-defined]
        assert instance["task"].query["tags"] is instance["tags"]  # type: ignore[attr-defined]


def test_a_pool_elsewhere(base: ColumnReader, train: str, other: str) -> None:
    found = reader(base, pool_path=train)
    pool = [words(instance) for instance in base.read(train)]
    instances = list(found.read(other))
    queries = [words(instance) for instance in instances]
    assert len(queries) == 10
    assert [support(instance) for instance in instances] == nearest(queries, pool, same=False)
    # The same sentence from another file is a neighbour like any other.
    assert found.text_to_instance(pool[3])["metadata"].metadata["support"][0]["words"] == pool[3]  # type: ignore[attr-defined]
    assert list(found.text_to_instance(["Paris"]).fields) == ["tokens", "metadata", "task"]


def test_a_pool_reader_of_its_own(
    base: ColumnReader, indexer: TokenIndexer, tiny_data: Path, train: str
) -> None:
    spanish = ColumnReader({"tokens": indexer}, num_columns=3)
    found = reader(spanish, pool_path=train, pool_reader=base)
    instances = list(found.read(str(tiny_data / "conll2002/esp.testb")))
    assert len(instances) == 10
    tags = [
        tag for instance in instances for n in instance["metadata"].metadata["support"] for tag in n["tags"]
    ]  # type: ignore[attr-defined]
    assert "B-PER" in tags  # BIO, although the pool's file is IOB1


@pytest.mark.parametrize("link", [False, True])
def test_reading_the_pool_itself(base: ColumnReader, train: str, tmp_path: Path, link: bool) -> None:
    path = other = distinct(train, tmp_path)
    if link:
        other = str(tmp_path / "link.txt")
        Path(other).symlink_to(path)
    instances = list(reader(base, pool_path=path).read(other))
    queries = [words(instance) for instance in instances]
    assert [support(instance) for instance in instances] == nearest(queries, queries, same=True)


def test_equal_texts(base: ColumnReader, train: str) -> None:
    # Two of the five templates name no person, so their sentences occur more than once.
    leaking = [words(i) in support(i) for i in reader(base).read(train)]
    assert sum(leaking) == 16
    instances = list(reader(base, retriever={"exclude_equal_texts": True}).read(train))
    assert not any(words(instance) in support(instance) for instance in instances)


def test_random_support(base: ColumnReader, train: str) -> None:
    instances = list(reader(base, retriever={"similarity_index": RandomIndex()}).read(train))
    pool = [words(instance) for instance in instances]
    drawn = [support(instance) for instance in instances]
    assert drawn != nearest(pool, pool, same=True)
    assert len({tuple(map(tuple, sentences)) for sentences in drawn}) > 20
    assert drawn == [
        support(i) for i in reader(base, retriever={"similarity_index": RandomIndex()}).read(train)
    ]


@pytest.mark.parametrize("mask_support", [True, False])
def test_mask_support(indexer: TokenIndexer, train: str, mask_support: bool) -> None:
    base = ColumnReader({"tokens": EntityMaskingIndexer(indexer, probability=1.0)}, scheme="IOB1")
    found = reader(base, mask_support=mask_support)
    instances = list(found.read(train))
    vocab = Vocabulary.from_instances(instances)
    counts = {"query": 0, "support": 0}
    for instance in instances:
        found.apply_token_indexers(instance)
        instance.index_fields(vocab)
        task = instance["task"].as_tensor({})  # type: ignore[attr-defined]
        for part in counts:
            counts[part] += int((task[part]["tokens"]["tokens"]["token_ids"] == 4).sum())
    assert counts["query"] > 50
    assert (counts["support"] > 50) == mask_support
    assert counts["support"] == 0 or mask_support


def test_allennlps_own_reader(indexer: TokenIndexer, train: str, other: str) -> None:
    base = DatasetReader.by_name("conll2003")(token_indexers={"tokens": indexer})
    assert isinstance(base, Conll2003DatasetReader)
    for found, path, size in [(reader(base), train, 40), (reader(base, pool_path=train), other, 10)]:
        loader = MultiProcessDataLoader(found, path, batch_size=4)
        loader.index_with(Vocabulary.from_instances(loader.iter_instances()))
        batches = list(loader)
        assert sum(len(batch["task"]) for batch in batches) == size
        assert batches[0]["task"][0]["support"]["tags"].size(0) == 2
        assert batches[0]["task"][0]["query"]["tokens"]["tokens"]["token_ids"].size(0) == 1


def test_the_archived_pool(base: ColumnReader, train: str, other: str, tmp_path: Path) -> None:
    source = distinct(train, tmp_path)
    arguments = {"pool_path": source, "serialization_dir": str(tmp_path / "run")}
    expected = [support(instance) for instance in reader(base, **arguments).read(other)]
    Path(source).unlink()
    encoder = LetterEncoder()
    found = reader(base, encoder, **arguments)
    # An unpacked archive is deleted as soon as it is loaded.
    (tmp_path / "run").rename(tmp_path / "gone")
    assert [support(instance) for instance in found.read(other)] == expected
    assert len(encoder.encoded) == 10  # the queries alone


def test_an_archived_pool_of_another_encoder(
    base: ColumnReader, train: str, other: str, tmp_path: Path
) -> None:
    source = distinct(train, tmp_path)
    arguments = {"pool_path": source, "serialization_dir": str(tmp_path / "run")}
    expected = [support(instance) for instance in reader(base, **arguments).read(other)]
    Path(source).unlink()
    encoder = LetterEncoder("2")
    found = reader(base, encoder, **arguments)
    assert found.pool.fingerprint == "2"
    assert len(encoder.encoded) == 15
    assert [support(instance) for instance in found.read(other)] == expected


class Unlabelled(DatasetReader):
    def __init__(self, indexer: TokenIndexer) -> None:
        super().__init__()
        self._token_indexers = {"tokens": indexer}

    def _read(self, file_path: Any) -> Iterable[Instance]:
        yield sentence_instance(["Maria", "won"])


def test_an_unlabelled_pool(indexer: TokenIndexer, base: ColumnReader, train: str, other: str) -> None:
    with pytest.raises(ConfigurationError, match=r"eng.train: the sentence 'Maria won' has no tags"):
        list(reader(base, pool_path=train, pool_reader=Unlabelled(indexer)).read(other))
    # Queries need no tags.
    (instance,) = reader(Unlabelled(indexer), pool_path=train, pool_reader=base).read(other)
    assert "tags" not in instance.fields
    assert len(support(instance)) == 2


def test_nothing_to_retrieve_from(base: ColumnReader) -> None:
    with pytest.raises(ConfigurationError, match="pool_path"):
        reader(base).text_to_instance(["Paris"])


def test_a_reader_that_cannot_be_indexed(indexer: TokenIndexer) -> None:
    base = Unlabelled(indexer)
    del base._token_indexers
    with pytest.raises(ConfigurationError, match="Unlabelled has no token indexers"):
        reader(base)


def rows(loader: MultiProcessDataLoader) -> list[tuple[str, list[list[int]]]]:
    """Of every task the query's words and the support's subwords."""
    return sorted(
        (" ".join(metadata["words"]), task["support"]["tokens"]["tokens"]["token_ids"].tolist())
        for batch in loader
        for metadata, task in zip(batch["metadata"], batch["task"], strict=True)
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_workers(base: ColumnReader, train: str, other: str, elsewhere: bool) -> None:
    path, arguments = (other, {"pool_path": train}) if elsewhere else (train, {})
    found = []
    for num_workers in (0, 1, 2):
        loader = MultiProcessDataLoader(
            reader(base, **arguments), path, batch_size=4, num_workers=num_workers
        )
        loader.index_with(Vocabulary.from_instances(list(base.read(train))))
        found.append(rows(loader))
        assert rows(loader) == found[-1]  # the next epoch
    assert len(found[0]) == (10 if elsewhere else 40)
    assert found[0] == found[1] == found[2]


def test_distributed_training(base: ColumnReader, indexer: TokenIndexer, train: str) -> None:
    """Every process has its share of the queries, and the whole pool."""
    expected = [(words(i), support(i)) for i in reader(base).read(train)]
    shares = []
    for rank in range(2):
        part = ColumnReader({"tokens": indexer}, scheme="IOB1")
        # What AllenNLP gives every reader that is made in a process of distributed training.
        part._set_distributed_info(DistributedInfo(2, rank))
        around = reader(part)
        around._set_distributed_info(DistributedInfo(2, rank))
        shares.append([(words(i), support(i)) for i in around.read(train)])
    assert [pair for pairs in zip(*shares, strict=True) for pair in pairs] == expected


def test_token_indexers_reach_all_sentences(base: ColumnReader, train: str, indexer: TokenIndexer) -> None:
    found = reader(base, pool_path=train)
    instance = found.text_to_instance(["Paris"])
    assert instance["tokens"]._token_indexers is None  # type: ignore[attr-defined]
    found.apply_token_indexers(instance)
    task = instance["task"]
    for sentence in (instance, task.query, *task.support):  # type: ignore[attr-defined]
        assert sentence["tokens"].token_indexers == {"tokens": indexer}
    assert isinstance(instance["tokens"][0], Token)  # type: ignore[index]
