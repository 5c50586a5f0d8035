"""The curves of a trial: for each metric its values in order, of very many those that a picture shows."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.pictures.sparkline import telling

MOST_POINTS = 400
"""Points of one curve: about one for each pixel."""


class Point(NamedTuple):
    """A value: as which one of its metric it was reported, from 1, and when; NaN where no time is known."""

    nth: int
    time_s: float
    value: float


Curves = dict[str, list[Point]]


def curves(rows: Iterable[tuple[str, str, float]]) -> Curves:
    """Return the curve of each metric from names, values and times of rows; what is no finite number has no point."""
    found: Curves = {}
    counts: Counter[str] = Counter()
    for name, text, time_s in rows:
        value = as_number(text)
        if value is None:
            continue
        counts[name] += 1
        if math.isfinite(value):
            found.setdefault(name, []).append(Point(counts[name], time_s, value))
    return found


def fuller(stored: Curves, shown: Sequence[Mapping[str, float]]) -> Curves:
    """Return for each metric the stored curve or, where it has more points, that of the rows that a callback showed."""
    found = dict(stored)
    names = {name for row in shown for name in row}
    for name in names:
        values = [(nth, row[name]) for nth, row in enumerate(shown, 1) if math.isfinite(row.get(name, math.nan))]
        if len(values) > len(stored.get(name, ())):
            found[name] = [Point(nth, math.nan, value) for nth, value in values]
    return found


def drawn(found: Curves, begin_s: float | None) -> dict[str, Any]:
    """Return curves as the page takes them: for each metric places, values, and seconds since the trial began.

    Of too many points there are the least and the greatest of each part, the first and the last.
    """
    return {name: _drawn(points, begin_s) for name, points in found.items()}


def _drawn(points: Sequence[Point], begin_s: float | None) -> dict[str, Any]:
    if len(points) > MOST_POINTS:
        kept = {0} | telling([point.value for point in points], MOST_POINTS - 1)
        points = [points[at] for at in sorted(kept)]
    begin_s = points[0].time_s if begin_s is None else begin_s
    has_times = not any(math.isnan(point.time_s) for point in points)
    return {
        "index": [point.nth for point in points],
        "value": [point.value for point in points],
        "seconds": [round(max(0.0, point.time_s - begin_s), 3) for point in points] if has_times else [],
    }
