"""RowBuffer: the values of one training run, and what is left of them when it is over."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from katib_callbacks.metrics import format_timestamp, parse_timestamp
from katib_callbacks.settings import Mode, Report

_FLOAT = frozenset({float})

_RESUMED = "resumed"
"""The key of the row that was open when a checkpoint was written; no framework's epoch or step equals it."""


class Position(NamedTuple):
    """A place in a training, from epoch 1 or in optimizer steps; ``number`` tells rows of one step apart."""

    epoch: int | None = None
    step: int | None = None
    number: int = 0


def older(position: Position, last: Position) -> str:
    """Return where a value is from and where the training ended, such as ``epoch 8 of 10``."""
    if position.epoch is not None and position.epoch != last.epoch:
        return f"epoch {position.epoch} of {last.epoch}"
    return f"step {position.step} of {last.step}"


@dataclass
class Row:
    """The values that were fresh at one moment of the training, usually an epoch's end; floats once converted."""

    key: Hashable
    timestamp: datetime
    values: dict[str, Any]


class RowBuffer:
    """Collects rows and reduces them. One row is open at a time and may still get values; the others are closed.

    Args:
        convert: Returns a value's number; None for what is none. Called at most once for each value.

    Attributes:
        last: The key of the last row.
        since: For each name, the key of the row that its latest value is from.
    """

    def __init__(
        self,
        report: Report,
        monitor: str | None,
        mode: Mode | None,
        convert: Callable[[str, Any], float | None],
    ) -> None:
        self._report = report
        self._monitor = monitor
        self._mode = mode
        self._convert = convert
        self.latest: dict[str, Any] = {}
        self.row_count = 0
        self.last: Hashable = None
        self.since: dict[str, Hashable] = {}
        self._open: Row | None = None
        self._best: dict[str, Any] | None = None
        self._best_value: float | None = None
        self._kept: dict[str, Any] | None = None
        self._history: list[Row] = []

    def add(self, values: Mapping[str, Any], *, key: Hashable, now: Callable[[], datetime]) -> bool:
        """Take fresh values and return whether they began a new row; the key None adds to the open one."""
        is_new_row = self._open is None or (key is not None and key != self._open.key)
        if self._open is None or is_new_row:
            self.close()
            self._open = Row(key, now(), {})
            self.row_count += 1
            self.last = key
        if self._report == "history":  # the others need the latest values, and that which decides
            self._open.values.update(values)
        elif self._monitor is not None and self._monitor in values:
            self._open.values[self._monitor] = values[self._monitor]
        self.latest.update(values)
        self.since.update(dict.fromkeys(values, self.last))
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

    def keep(self, values: Mapping[str, Any] | None = None) -> None:
        """Note that the model is kept as it is now, in the place of the one before; values default to the latest."""
        self._kept = dict(self.latest if values is None else values)

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

    @property
    def has_kept(self) -> bool:
        """Whether a model was kept."""
        return bool(self._kept)

    def reduced(self, now: datetime, *, is_kept_wanted: bool = False) -> list[Row]:
        """Return the rows to report in order of time; ``best`` without a best row is the latest values, at ``now``."""
        self.close()
        if self._report == "history":
            return list(self._history)
        values = self.latest if self._best is None else self._best
        if is_kept_wanted and self._kept:
            values = self._kept
        return [Row(None, now, dict(values))] if values else []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats. Converts what is held, in place."""
        held = [self.latest]
        if self._open is not None:
            held.append(self._open.values)
        held += [values for values in (self._best, self._kept) if values is not None]
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
            "last": _listed(self.last),
            "since": {name: _listed(key) for name, key in self.since.items()},
            "open": None if self._open is None else _plain(self._open),
            "best": None if self._best is None else dict(self._best),
            "best_value": self._best_value,
            "kept": None if self._kept is None else dict(self._kept),
            "history": [_plain(row) for row in self._history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.latest = dict(state["latest"])
        self.row_count = state["row_count"]
        self.last = _position(state["last"])
        self.since = {name: _position(key) for name, key in state["since"].items()}
        self._open = None if state["open"] is None else _row(state["open"])
        self._best = None if state["best"] is None else dict(state["best"])
        self._best_value = state["best_value"]
        self._kept = None if state["kept"] is None else dict(state["kept"])
        self._history = [_row(plain) for plain in state["history"]]


def _plain(row: Row) -> list[Any]:
    return [format_timestamp(row.timestamp), dict(row.values)]


def _row(plain: list[Any]) -> Row:
    timestamp, values = plain
    return Row(_RESUMED, parse_timestamp(timestamp), dict(values))


def _listed(key: Hashable) -> Any:
    return list(key) if isinstance(key, Position) else key


def _position(key: Any) -> Hashable:
    return Position(*key) if isinstance(key, list | tuple) else key
