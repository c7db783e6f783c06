"""One plain JSON file a job: what was done, on what, and what came out."""

import json
import platform
import time
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Optional

import torch

from allennlp_metaner.atomic import write_json

RECORD = "record.json"
"""The file of a job's folder whose presence means that the job was done, or failed."""

PREDICTIONS = "predictions.jsonl"
"""The file of a cell's folder with words, gold and predicted tags, a sentence a line."""

FINISHED, FAILED = "finished", "failed"
"""The values of a record's `status`."""

_PACKAGES = (
    "allennlp-metaner",
    "allennlp",
    "allennlp-models",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
)


def read_record(folder: Path) -> Optional[dict[str, Any]]:
    """The record in a job's folder, or `None` if there is none."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def write_record(folder: Path, job: dict[str, Any], started: float, outcome: dict[str, Any]) -> None:
    """
    Write a job's record.

    # Parameters

    folder : `Path`
        That of the job.
    job : `dict[str, Any]`
        What the job is.
    started : `float`
        When it began, as `time.time()` says it.
    outcome : `dict[str, Any]`
        Its `status`, and what came out.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    circumstances = {
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(),
        "seconds": round(time.time() - started, 1),
        "machine": platform.node(),
        "device": device,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }
    write_json(folder / RECORD, {**job, **outcome, **circumstances})


def _version(package: str) -> Optional[str]:
    try:
        return version(package)
    except PackageNotFoundError:
        # Also a package that is run from its sources has none.
        return None
