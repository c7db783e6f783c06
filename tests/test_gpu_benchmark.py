"""The benchmark for GPUs runs from end to end without one, on tiny models, and says if there is none."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("METANER_ENCODER", "")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # The demo has a module "run", too.
    names = ("gpu", "run", "workload")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("gpu")
    for name in names:
        sys.modules.pop(name, None)


def test_trial_on_the_cpu(benchmark: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "figures.jsonl"
    benchmark.main(["--device", "cpu", "--quick", "--output", str(output)])
    found = {row["name"]: row["value"] for row in map(json.loads, output.read_text("utf-8").splitlines())}
    for execution in ("per_task", "batched"):
        assert found[f"meta-gradient of 4 tasks, {execution}"] > 0
        assert found[f"adaptation, {execution}"] > 0
    assert found["memory of 4 tasks, batched, predicted"] > 0
    assert found["encoding a pool"] > 0
    assert 0 <= found["F1 after 2 updates, cpu"] <= 1


def test_without_a_gpu(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"There is no GPU here .* --device cpu --quick"):
        benchmark.main([])
