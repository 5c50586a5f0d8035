"""The observation of a trial: its rows, reduced as Katib does it, and the objective's value."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TypeAlias

from katib_callbacks.metrics.scalars import as_number

UNAVAILABLE = "unavailable"
"""Katib's word for a metric without a value (pkg/controller.v1beta1/consts/const.go)."""

UNAVAILABLE_TIME = datetime(1, 1, 1, tzinfo=timezone.utc)
"""The time of the row that says so: Go's zero time."""

Observation: TypeAlias = list[dict[str, str]]


def reduce(rows: Iterable[tuple[str, str]], metrics: Sequence[str]) -> Observation:
    """Return ``min``, ``max`` and ``latest`` of the declared metrics, as strings that were reported by time.

    As Katib's trial controller does (trial_controller_util.go, getMetrics): values that are no numbers count only for
    ``latest``, a NaN that comes first stays, and of equal times the later row is the latest.
    """
    reduced = {name: {"name": name, "min": UNAVAILABLE, "max": UNAVAILABLE, "latest": UNAVAILABLE} for name in metrics}
    for name, text in rows:
        metric = reduced.get(name)
        if metric is None:
            continue
        metric["latest"] = text
        value = as_number(text)
        if value is None:
            continue
        if metric["min"] == UNAVAILABLE:
            metric["min"] = metric["max"] = text
        elif value < float(metric["min"]):
            metric["min"] = text
        elif value > float(metric["max"]):
            metric["max"] = text
    return list(reduced.values())


def objective_text(observation: Sequence[Mapping[str, str]], metric: str, strategy: str) -> str:
    """Return the objective that counts, as a string; ``unavailable`` if there is none."""
    for one in observation:
        if one["name"] == metric:
            return one["latest"] if one[strategy] == UNAVAILABLE else one[strategy]
    return UNAVAILABLE


def objective_value(text: str) -> float | None:
    """Return the objective as a number that an algorithm can learn from; None for any other."""
    value = as_number(text)
    return value if value is not None and math.isfinite(value) else None
