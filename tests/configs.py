"""The shipped configs, many in one evaluation: Jsonnet takes longer to start than most tests."""

import copy
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from _jsonnet import evaluate_snippet

CONFIGS = Path(__file__).parents[1] / "training_configs"
NAMES = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.rglob("*.jsonnet")
    if not {"lib", "experiments"} & set(path.parts)
)
# The others are overrides for an archive.
TRAINING = [
    name for name in NAMES if "override.libsonnet" not in (CONFIGS / f"{name}.jsonnet").read_text("utf-8")
]


def config(name: str, together: Sequence[str] = ()) -> dict[str, Any]:
    """By its path in `training_configs`, for the environment as it is; with it, `together` are evaluated."""
    variables = {key: value for key, value in os.environ.items() if key.startswith("METANER_")}
    names = tuple(together) if name in together else (name,)
    return copy.deepcopy(_evaluated(names, json.dumps(variables, sort_keys=True))[name])


@cache
def _evaluated(names: tuple[str, ...], variables: str) -> dict[str, Any]:
    imports = ", ".join(f"'{name}': import '{CONFIGS}/{name}.jsonnet'" for name in names)
    found = json.loads(evaluate_snippet("configs", f"{{ {imports} }}", ext_vars=json.loads(variables)))
    return dict(found)
