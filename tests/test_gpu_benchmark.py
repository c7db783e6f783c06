"""The benchmark for GPUs runs from end to end without one, on tiny models, and says if there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def benchmark(import_benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("METANER_ENCODER", "")
    return import_benchmark("gpu")


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
