"""The curves of a trial: for each metric its values in order, of very many those that a picture shows."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from katib_callbacks.local.collectors.observation import number

MOST_POINTS = 400
"""Points of one curve: about one for each pixel."""


class Point(NamedTuple):
    """A value, when it was reported in seconds since the epoch, and as which one of its metric, from 1."""

    nth: int
    time_s: float
    value: float


def curves(rows: Iterable[tuple[str, str, float]]) -> dict[str, list[Point]]:
    """Return the curve of each metric from names, values and times of rows; what is no finite number has no point."""
    found: dict[str, list[Point]] = {}
    counts: dict[str, int] = {}
    for name, text, time_s in rows:
        value = number(text)
        if value is None:
            continue
        counts[name] = counts.get(name, 0) + 1
        if math.isfinite(value):
            found.setdefault(name, []).append(Point(counts[name], time_s, value))
    return {name: thinned(points) for name, points in found.items()}


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return a curve of few enough points, with the least and the greatest of each part, the first and the last."""
    if len(points) <= MOST_POINTS:
        return list(points)
    parts = MOST_POINTS // 2 - 1
    kept = {points[0], points[-1]}
    for part in range(parts):
        some = points[len(points) * part // parts : len(points) * (part + 1) // parts]
        kept.update((min(some, key=_value), max(some, key=_value)))
    return sorted(kept)


def _value(point: Point) -> float:
    return point.value


def drawn(found: dict[str, list[Point]], begin_s: float | None) -> dict[str, Any]:
    """Return curves as the page takes them: for each metric indices, seconds since the beginning and values."""
    return {
        name: {
            "index": [point.nth for point in points],
            "seconds": [round(max(0.0, point.time_s - (begin_s or point.time_s)), 3) for point in points],
            "value": [point.value for point in points],
        }
        for name, points in found.items()
    }
