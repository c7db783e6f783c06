"""Precision, recall and F1 as a table for the screen."""

from collections.abc import Mapping
from typing import Any

NAMES = ("precision", "recall", "f1-measure")
OVERALL = "overall"


def score_table(metrics: Mapping[str, Any]) -> str:
    """
    # Parameters

    metrics : `Mapping[str, Any]`
        Those of [`SpanF1`](../nn/span_f1.md#spanf1), perhaps among others.

    # Returns

    `str`
        A line for each entity type and one for all, in per cent; empty, if the metrics have no F1.
    """
    types = sorted(key.removeprefix("f1-measure-") for key in metrics if key.startswith("f1-measure-"))
    if OVERALL not in types:
        return ""
    types.remove(OVERALL)
    width = max(map(len, [*types, OVERALL]))
    lines = [f"{'':{width}}  precision  recall      F1"]
    for type_ in [*types, OVERALL]:
        precision, recall, f1 = (100 * metrics[f"{name}-{type_}"] for name in NAMES)
        lines.append(f"{type_:{width}}  {precision:9.2f}  {recall:6.2f}  {f1:6.2f}")
    return "\n".join(lines) + "\n"
