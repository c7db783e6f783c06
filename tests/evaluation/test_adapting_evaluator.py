"""`allennlp evaluate`: the predictor's labels, and metrics of nothing but the sentences to label."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from allennlp.commands.evaluate import evaluate_from_archive
from allennlp.common.checks import ConfigurationError
from allennlp.data import DataLoader
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.evaluation import Evaluator
from allennlp.models import load_archive
from allennlp.models.archival import Archive
from allennlp.predictors import Predictor

from allennlp_metaner.data.column_reader import ColumnReader
from allennlp_metaner.evaluation.processes import EvaluationProcesses
from allennlp_metaner.nn.span_f1 import SpanF1


@pytest.fixture(autouse=True)
def model_stays(tiny_archive: Archive) -> Iterator[None]:
    """Whatever a test does, the weights are bit for bit what they were, and no gradient is left."""
    before = {name: tensor.clone() for name, tensor in tiny_archive.model.state_dict().items()}
    yield
    for name, tensor in tiny_archive.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in tiny_archive.model.parameters())


def loader(archive: Archive, path: Path, reader: Any = None) -> DataLoader:
    # Batches of several sentences, and more than one.
    found = MultiProcessDataLoader(reader or archive.validation_dataset_reader, str(path), batch_size=4)
    found.index_with(archive.model.vocab)
    return found


def evaluate(archive: Archive, path: Path, output: Path, **settings: Any) -> tuple[dict[str, Any], ...]:
    evaluator = Evaluator.from_params(archive.config["evaluation"].duplicate(), **settings)
    metrics = evaluator(archive.model, loader(archive, path), predictions_output_file=output)
    found: dict[str, list[Any]] = {"words": [], "tags": [], "probabilities": [], "gold": []}
    for line in output.read_text("utf-8").splitlines():
        batch = json.loads(line)
        for key in ("words", "tags", "probabilities"):
            found[key] += batch[key]
        found["gold"] += [sentence["tags"] for sentence in batch["metadata"]]
    return metrics, found


@pytest.mark.parametrize("adapt", [True, False])
def test_agrees_with_the_predictor(
    tiny_run: SimpleNamespace,
    tiny_archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    adapt: bool,
) -> None:
    path = tiny_run.data / "conll2003/eng.testb"
    metrics, found = evaluate(tiny_archive, path, tmp_path / "predictions.jsonl", adapt=adapt)
    predictor = Predictor.from_archive(tiny_archive, extra_args={"adapt": adapt})
    outputs = predictor.predict_batch_json([{"words": words} for words in found["words"]])
    assert len(outputs) == 10
    assert found["tags"] == [output["tags"] for output in outputs]
    assert any(output["entities"] for output in outputs)
    # Support sentences, which are labelled too, do not count.
    metric = SpanF1()
    metric(found["tags"], found["gold"])
    assert metrics == {**metric.get_metric(), "loss": metrics["loss"]}
    assert 0 < metrics["accuracy"] < 1
    assert metrics["loss"] > 0
    *_, overall = capsys.readouterr().out.splitlines()
    assert overall.split()[::3] == ["overall", f"{100 * metrics['f1-measure-overall']:.2f}"]


def test_adaptation_makes_a_difference(
    tiny_run: SimpleNamespace, tiny_archive: Archive, tmp_path: Path
) -> None:
    path = tiny_run.data / "conll2003/eng.testb"
    adapted, plain, again = (
        evaluate(tiny_archive, path, tmp_path / f"{number}.jsonl", **settings)
        for number, settings in enumerate([{}, {"adapt": False}, {}])
    )
    assert adapted == again
    assert adapted[0]["loss"] != plain[0]["loss"]
    assert adapted[1]["words"] == plain[1]["words"]
    for ours, theirs in zip(adapted[1]["probabilities"], plain[1]["probabilities"], strict=True):
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 1e-3


def test_data_without_tasks(tiny_run: SimpleNamespace, tiny_archive: Archive) -> None:
    path = tiny_run.data / "conll2003/eng.testb"
    reader = ColumnReader(
        scheme="IOB1", token_indexers=tiny_archive.validation_dataset_reader._token_indexers
    )
    with pytest.raises(ConfigurationError, match=r"needs 'task'.*'pseudo_tasks'.*adapt = false"):
        Evaluator.by_name("adapting")()(tiny_archive.model, loader(tiny_archive, path, reader))
    plain = Evaluator.by_name("adapting")(adapt=False)
    assert plain(tiny_archive.model, loader(tiny_archive, path, reader)) == plain(
        tiny_archive.model, loader(tiny_archive, path)
    )


@pytest.mark.parametrize("adapt", [True, False])
def test_a_masking_reader_is_refused(tiny_run: SimpleNamespace, adapt: bool) -> None:
    archive = load_archive(str(tiny_run.archive))
    evaluator = Evaluator.by_name("adapting")(adapt=adapt)
    # The training reader masks.
    masked = loader(archive, tiny_run.data / "conll2003/eng.testb", archive.dataset_reader)
    with pytest.raises(ConfigurationError, match="evaluation masks entity words"):
        evaluator(archive.model, masked)


@pytest.mark.parametrize("adapt", [True, False])
def test_loss_does_not_depend_on_the_batch_size(
    tiny_run: SimpleNamespace, tiny_archive: Archive, tmp_path: Path, adapt: bool
) -> None:
    """It is the mean over sentences; ten of them leave a last batch that is smaller."""
    losses = []
    for batch_size in (1, 4, 32):
        data = MultiProcessDataLoader(
            tiny_archive.validation_dataset_reader,
            str(tiny_run.data / "conll2003/eng.testb"),
            batch_size=batch_size,
        )
        data.index_with(tiny_archive.model.vocab)
        output = tmp_path / "metrics.json"
        evaluator = Evaluator.by_name("adapting")(adapt=adapt)  # type: ignore[call-arg]
        # As the command calls it.
        metrics = evaluator(tiny_archive.model, data, "", metrics_output_file=output)
        assert json.loads(output.read_text("utf-8"))["loss"] == metrics["loss"]
        losses.append(metrics["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert losses[0] > 0


def test_an_evaluation_that_broke_off_does_not_count(
    tiny_run: SimpleNamespace, tiny_archive: Archive
) -> None:
    data = loader(tiny_archive, tiny_run.data / "conll2003/eng.testb")
    evaluator = Evaluator.by_name("adapting")(adapt=False)  # type: ignore[call-arg]
    expected = evaluator(tiny_archive.model, data)
    with pytest.raises(KeyError, match="no_such_weight"):
        evaluator(tiny_archive.model, data, "no_such_weight")
    assert evaluator(tiny_archive.model, data) == expected


def test_a_loss_for_some_batches_alone(
    tiny_run: SimpleNamespace, tiny_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = loader(tiny_archive, tiny_run.data / "conll2003/eng.testb")
    forward, calls = tiny_archive.model.forward, []

    def sometimes(**batch: Any) -> dict[str, Any]:
        calls.append(batch)
        return {key: value for key, value in forward(**batch).items() if len(calls) != 2 or "loss" not in key}

    evaluator = Evaluator.by_name("adapting")(adapt=False)  # type: ignore[call-arg]
    with monkeypatch.context() as patch:
        patch.setattr(tiny_archive.model, "forward", sometimes)
        with pytest.raises(ConfigurationError, match="1 of 3 batches gave no loss"):
            evaluator(tiny_archive.model, data)
    tiny_archive.model.get_metrics(reset=True)


def test_unknown_types(tiny_archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_archive.validation_dataset_reader._base_reader, "_entity_types", None)
    path = tmp_path / "dates.txt"
    path.write_text("Anna - - I-PER\n\nIt - - O\nrained - - O\nMonday - - I-DATE\n", "utf-8")
    with pytest.raises(
        ConfigurationError,
        match=r"dates\.txt:3: in 'It rained Monday', 'Monday' has the tag 'B-DATE', but the model knows the "
        r'types LOC, MISC, ORG, PER alone.*label_map=\{"DATE": "O"\}.*base_reader\.label_map',
    ):
        loader(tiny_archive, path)


def test_types_that_had_one_word_in_training(tiny_archive: Archive, tmp_path: Path) -> None:
    """The tiny corpus has no `I-LOC`."""
    path = tmp_path / "places.txt"
    path.write_text("San - - I-LOC\nJose - - I-LOC\n", "utf-8")
    metrics, found = evaluate(tiny_archive, path, tmp_path / "predictions.jsonl")
    assert found["gold"] == [["B-LOC", "I-LOC"]]
    assert metrics["loss"] > 0
    vocab = tiny_archive.model.vocab
    assert vocab.get_vocab_size("labels") == 9
    assert vocab.get_token_from_index(8, "labels") == "I-LOC"


def test_adaptation_that_overflows(tiny_run: SimpleNamespace, tiny_archive: Archive) -> None:
    """Not "O" everywhere."""
    overrides = {"model.adaptation.inner_loop.optimizer.lr": 1e38}
    broken = load_archive(str(tiny_run.archive), overrides=overrides)
    with pytest.raises(ConfigurationError, match=r"NaN or infinite.*model\.adaptation\.inner_loop"):
        Predictor.from_archive(broken).predict_json({"sentence": "Anna Smith visited Paris."})
    # Without adaptation, the same model is sound, until its weights are not.
    plain = Predictor.from_archive(broken, extra_args={"adapt": False})
    assert plain.predict_json({"sentence": "Anna Smith visited Paris."})["tags"]
    with torch.no_grad():
        broken.model.classifier.bias[0] = float("nan")
    with pytest.raises(ConfigurationError, match="NaN or infinite"):
        plain.predict_json({"sentence": "Anna Smith visited Paris."})


def evaluated(rank: int, archive: Path, data: str, folder: Path, size: int, batch_size: int) -> None:
    """As `torchrun` starts a process."""
    if size > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
        os.environ.update(TORCHELASTIC_RUN_ID="none", TORCHELASTIC_USE_AGENT_STORE="True")
    metrics = evaluate_from_archive(
        archive,
        data,
        batch_size=batch_size,
        metrics_output_file=f"{folder}/a.json,{folder}/b.json",
        predictions_output_file=f"{folder}/a.jsonl,{folder}/b.jsonl",
    )
    (folder / f"{rank}.json").write_text(json.dumps(metrics), "utf-8")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> torch.distributed.Store:
    """`torchrun`'s own, at which its processes meet, and which is there as long as they are."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    return store


@pytest.mark.parametrize(("size", "batch_size"), [(2, 2), (3, 5)])
def test_processes_share_a_file(
    tiny_run: SimpleNamespace, tmp_path: Path, agent: torch.distributed.Store, size: int, batch_size: int
) -> None:
    """Of five batches, one has three; of two batches, one has none. Two files, one by one."""
    data = f"{tiny_run.data / 'conll2003/eng.testb'},{tiny_run.data / 'conll2003/eng.testa'}"
    folders = {number: tmp_path / str(number) for number in (1, size)}
    for number, folder in folders.items():
        folder.mkdir()
        work = (tiny_run.archive, data, folder, number, batch_size)
        mp.start_processes(evaluated, work, number, start_method="fork")
    expected = json.loads((folders[1] / "0.json").read_text("utf-8"))
    assert expected["eng_f1-measure-overall"] > 0
    for rank in range(size):
        assert json.loads((folders[size] / f"{rank}.json").read_text("utf-8")) == pytest.approx(expected)
    for name in ("a", "b"):
        ours, theirs = (
            [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
            for folder in folders.values()
        )
        assert [(line["words"], line["tags"]) for line in ours] == [
            (line["words"], line["tags"]) for line in theirs
        ]
        assert len(ours) == 10 // batch_size
        assert json.loads((folders[size] / f"{name}.json").read_text("utf-8")) == pytest.approx(
            json.loads((folders[1] / f"{name}.json").read_text("utf-8"))
        )


def test_workers_cannot_be_shared_out(tiny_run: SimpleNamespace, tiny_archive: Archive) -> None:
    batches = loader(tiny_archive, tiny_run.data / "conll2003/eng.testb")
    batches.num_workers = 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"num_workers=2 with torchrun: .* Set it to 0"):
        EvaluationProcesses(rank=0, size=2).share(batches)
    assert EvaluationProcesses().share(batches) is batches
