"""Means of weights, against plain Python, and as archives that load."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from allennlp.commands import main
from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive

from allennlp_metaner.experiments.averaging import last_checkpoints, mean_weights, write_average


def save(path: Path, **weights: torch.Tensor) -> Path:
    torch.save(weights, path)
    return path


def test_mean(tmp_path: Path) -> None:
    values = [[1.0, 2.0**-24, 3.0], [0.1, 1.0, 5.0], [-7.0, 2.0**-24, 1e8]]
    files = [
        save(tmp_path / f"{n}.th", weight=torch.tensor(row), steps=torch.tensor([4]))
        for n, row in enumerate(values)
    ]
    found = mean_weights(files)
    # In float32, a sum would lose the small ones.
    stored = [torch.tensor(row).tolist() for row in values]
    expected = [sum(column) / 3 for column in zip(*stored, strict=True)]
    assert torch.equal(found["weight"], torch.tensor(expected))
    assert found["weight"].dtype == torch.float32
    assert found["steps"].tolist() == [4]
    assert torch.equal(mean_weights(files[:1])["weight"], torch.tensor(values[0]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"other": torch.ones(2), "n": torch.tensor(1)}, "other is in one of them alone"),
        ({"weight": torch.ones(3), "n": torch.tensor(1)}, r"weight has the shapes \(2,\) and \(3,\)"),
        ({"weight": torch.ones(2), "n": torch.tensor(2)}, "n has no mean, and differs"),
    ],
)
def test_other_weights(weights: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    first = save(tmp_path / "a.th", weight=torch.ones(2), n=torch.tensor(1))
    second = save(tmp_path / "b.th", **weights)
    with pytest.raises(ConfigurationError, match=f"a.th and .*b.th cannot be averaged: {message}. Give runs"):
        mean_weights([first, second])


def test_last_checkpoints(tmp_path: Path) -> None:
    for name in ("e9_b0", "e10_b0", "e10_b50", "e2_b0"):
        (tmp_path / f"model_state_{name}.th").touch()
    (tmp_path / "model_state_e99_b0.th.tmp").touch()
    names = [path.name for path in last_checkpoints(tmp_path, 3)]
    assert names == ["model_state_e9_b0.th", "model_state_e10_b0.th", "model_state_e10_b50.th"]
    for number in (5, 0):
        with pytest.raises(ConfigurationError, match=r"last .* there are 4 \(model_state_e2_b0.*most_recent"):
            last_checkpoints(tmp_path, number)


@pytest.fixture
def runs(tiny_run: SimpleNamespace, tmp_path: Path) -> list[Path]:
    """A run with two checkpoints, and a copy of it with other final weights."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(tiny_run.run, folder, ignore=shutil.ignore_patterns("training_state*", "log"))
    weights = torch.load(folders[0] / "best.th")
    torch.save({name: weight * 3 for name, weight in weights.items()}, folders[1] / "best.th")
    (folders[1] / "model.tar.gz").unlink()
    return folders


def test_of_runs(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, with an archive and a serialization directory."""
    output = tmp_path / "new" / "mean.tar.gz"
    sources = [str(runs[0] / "model.tar.gz"), str(runs[1])]
    monkeypatch.setattr("sys.argv", ["allennlp", "metaner-average", *sources, "-o", str(output)])
    main()
    expected = torch.load(runs[0] / "best.th")
    for folder in runs:
        shutil.rmtree(folder)
    archive = load_archive(output)
    for name, weight in archive.model.state_dict().items():
        torch.testing.assert_close(weight, 2 * expected[name], rtol=1e-6, atol=0)
    # Nothing is missing in it: the pool and the encoder are in there.
    assert archive.validation_dataset_reader.pool.sentences
    assert [path.name for path in output.parent.iterdir()] == ["mean.tar.gz"]


def test_of_checkpoints(runs: list[Path], tmp_path: Path) -> None:
    assert write_average(runs[:1], tmp_path / "mean.tar.gz", last=2) == 2
    first, second = (torch.load(runs[0] / f"model_state_e{n}_b0.th") for n in (1, 2))
    for name, weight in load_archive(tmp_path / "mean.tar.gz").model.state_dict().items():
        expected = ((first[name].double() + second[name].double()) / 2).float()
        assert torch.equal(weight, expected), name


def test_sources_of_other_models(runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out" / "mean.tar.gz"
    vocabulary = runs[1] / "vocabulary" / "labels.txt"
    original = vocabulary.read_text()
    vocabulary.write_text(original + "B-DATE\n")
    with pytest.raises(ConfigurationError, match=r"first and .*second .*vocabularies are not the same"):
        write_average(runs, output)
    vocabulary.write_text(original)
    config = json.loads((runs[1] / "config.json").read_text())
    config["model"]["frozen_layers"] = 0
    (runs[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="the key 'model' of their configs is not the same"):
        write_average(runs, output)
    config["model"]["frozen_layers"] = 3
    config["model"]["adaptation"]["enabled"] = False
    config["random_seed"] = 7
    (runs[1] / "config.json").write_text(json.dumps(config))
    weights = torch.load(runs[1] / "best.th")
    weights["classifier.bias"] = torch.zeros(3)
    torch.save(weights, runs[1] / "best.th")
    with pytest.raises(ConfigurationError, match=r"classifier\.bias has the shapes"):
        write_average(runs, output)
    # Nothing is left behind.
    assert not list(output.parent.iterdir())
