"""RowBuffer: the values of one training run, and what is left of them when it is over."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from katib_callbacks.metrics import format_timestamp, parse_timestamp

_FLOAT = frozenset({float})

_RESUMED = "resumed"
"""The key of the row that was open when a checkpoint was written; no framework's epoch or step equals it."""


@dataclass
class Row:
    """What was fresh at one moment of the training, usually the end of an epoch.

    Args:
        key: Tells this row from the next one: an epoch's or a step's number.
        timestamp: When it began.
        values: The framework's names and raw values, or floats once it is converted.
    """

    key: Hashable
    timestamp: datetime
    values: dict[str, Any]


class RowBuffer:
    """Collects rows and reduces them. One row is open at a time and may still get values; the others are closed.

    Args:
        report: The reduction.
        monitor: For ``best``: the name that decides.
        mode: For ``best``: whether less or more is better.
        convert: Returns a value's number; None for what is none. Called at most once for each value.
    """

    def __init__(
        self,
        report: Literal["final", "best", "history"],
        monitor: str | None,
        mode: Literal["min", "max"] | None,
        convert: Callable[[str, Any], float | None],
    ) -> None:
        self._report = report
        self._monitor = monitor
        self._mode = mode
        self._convert = convert
        self.latest: dict[str, Any] = {}
        self.row_count = 0
        self._open: Row | None = None
        self._best: dict[str, Any] | None = None
        self._best_value: float | None = None
        self._kept: dict[str, Any] | None = None
        self._history: list[Row] = []

    def add(self, values: Mapping[str, Any], *, key: Hashable, now: Callable[[], datetime]) -> bool:
        """Take fresh values; those of another key than the open row's close it, None always adds to the open row.

        Args:
            values: The framework's names and raw values.
            key: Tells rows apart.
            now: Is asked for the time of a new row.

        Returns:
            Whether they began a new row.
        """
        is_new_row = self._open is None or (key is not None and key != self._open.key)
        if self._open is None or is_new_row:
            self.close()
            self._open = Row(key, now(), {})
            self.row_count += 1
        if self._report == "history":  # the others need the latest values, and that which decides
            self._open.values.update(values)
        elif self._monitor is not None and self._monitor in values:
            self._open.values[self._monitor] = values[self._monitor]
        self.latest.update(values)
        return is_new_row

    def close(self) -> None:
        """Reduce the open row. The first of equally good rows is the best one, as it is for the frameworks."""
        row, self._open = self._open, None
        if row is None:
            return
        if self._report == "history":
            row.values = self._converted(row.values)
            self._history.append(row)
        elif self._report == "best" and self._monitor in row.values:
            value = row.values[self._monitor]
            number = value if type(value) is float else self._convert(self._monitor, value)
            if number is not None and math.isfinite(number):
                row.values[self._monitor] = self.latest[self._monitor] = number
                if self._best_value is None or self._is_better(number, self._best_value):
                    self._best_value = number
                    self._best = dict(self.latest)

    def keep(self, values: Mapping[str, Any]) -> None:
        """Take these for the values of the model that is kept, in the place of those before."""
        self._kept = dict(values)

    def _is_better(self, number: float, than: float) -> bool:
        return number < than if self._mode == "min" else number > than

    def _converted(self, values: dict[str, Any]) -> dict[str, float]:
        if _FLOAT.issuperset(map(type, values.values())):
            return values
        numbers = {}
        for name, value in values.items():
            number = value if type(value) is float else self._convert(name, value)
            if number is not None:
                numbers[name] = number
        return numbers

    @property
    def has_best(self) -> bool:
        """Whether the monitored metric had a finite value in a closed row."""
        return self._best is not None

    def reduced(self, now: datetime, *, is_kept_wanted: bool = False) -> list[Row]:
        """Return what is to be reported, in the order of time; ``best`` without a best row is the latest values.

        Args:
            now: The time of a row that stands for all.
            is_kept_wanted: Whether the values of the model that is kept are wanted, not the best or latest ones.
        """
        self.close()
        if self._report == "history":
            return list(self._history)
        values = self.latest if self._best is None else self._best
        if is_kept_wanted and self._kept is not None:
            values = self._kept
        return [Row(None, now, dict(values))] if values else []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats. Converts what is held, in place."""
        held = [self.latest]
        if self._open is not None:
            held.append(self._open.values)
        if self._best is not None:
            held.append(self._best)
        numbers: dict[int, float | None] = {}  # one value often stands in several of these
        for values in held:
            for name, value in values.items():
                if id(value) not in numbers:
                    numbers[id(value)] = self._convert(name, value)
        for values in held:
            converted = {name: numbers[id(value)] for name, value in values.items()}
            values.clear()
            values.update({name: number for name, number in converted.items() if number is not None})
        return {
            "latest": dict(self.latest),
            "row_count": self.row_count,
            "open": None if self._open is None else _plain(self._open),
            "best": None if self._best is None else dict(self._best),
            "best_value": self._best_value,
            "history": [_plain(row) for row in self._history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.latest = dict(state["latest"])
        self.row_count = state["row_count"]
        self._open = None if state["open"] is None else _row(state["open"])
        self._best = None if state["best"] is None else dict(state["best"])
        self._best_value = state["best_value"]
        self._history = [_row(plain) for plain in state["history"]]


def _plain(row: Row) -> list[Any]:
    return [format_timestamp(row.timestamp), dict(row.values)]


def _row(plain: list[Any]) -> Row:
    timestamp, values = plain
    return Row(_RESUMED, parse_timestamp(timestamp), dict(values))
