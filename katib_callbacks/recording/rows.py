"""RowBuffer: the values of one training run, and what is left of them when it is over."""

import math
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from katib_callbacks.metrics import format_timestamp, parse_timestamp
from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.reporting.progress import Place
from katib_callbacks.settings import Mode, Report

_FLOAT = frozenset({float})
_MAX_ORIGINS = 64

_UNNAMED = "unnamed"
_RESUMED = "resumed"
"""The key of the row that was open when a checkpoint was written; no framework's epoch or step equals it."""


class Row(NamedTuple):
    """The values that were fresh at one moment of the training, usually an epoch's end."""

    timestamp: datetime
    values: dict[str, Any]


class Values:
    """The latest value of each name, in a training so far or of one model, and the row that each is from.

    Attributes:
        values: By the framework's names; floats once converted.
        key: The key of the last row. The adapters' are its place in the training: epoch, from 1, and optimizer step,
            each None where it does not count, and a number that tells rows of one step apart.
        row_count: How many rows there are.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.key: Hashable = None
        self.row_count = 0
        self._row: tuple[int, Hashable] = (0, None)  # the last one's number and key
        self._origins: dict[tuple[str, ...], tuple[int, Hashable]] = {}  # by names that came together: their last row

    def begin(self, key: Hashable) -> None:
        """Begin a row."""
        self.key = key
        self.row_count += 1
        self._row = self.row_count, key
        if len(self._origins) > _MAX_ORIGINS:
            self._origins = {(name,): (0, self.origin(name)) for name in self.values}

    def take(self, values: Mapping[str, Any]) -> None:
        """Take fresh values into the last row."""
        self.values.update(values)
        self._origins[tuple(values)] = self._row

    def origin(self, name: str) -> Hashable:
        """Return the key of the row that a name's value is from."""
        rows = [row for names, row in self._origins.items() if name in names]
        return max(rows, key=lambda row: row[0])[1] if rows else self.key

    def copy(self) -> "Values":
        """Return what a model has that is kept now."""
        other = Values.__new__(Values)
        other.values, other.key, other.row_count = self.values.copy(), self.key, self.row_count
        other._row, other._origins = self._row, self._origins.copy()  # noqa: SLF001  of the same class
        return other

    def state(self) -> list[Any]:
        """Return plain dicts and lists: the values, the keys of their rows, the key of the last row."""
        origins = {name: _plain(self.origin(name)) for name in self.values}
        return [dict(self.values), origins, _plain(self.key)]

    @classmethod
    def of(cls, state: list[Any], row_count: int = 0) -> "Values":
        """Return what :meth:`state` was called on."""
        made = cls()
        made.values, made.key, made.row_count = dict(state[0]), _key(state[2]), row_count
        made._row = row_count, made.key
        made._origins = {(name,): (0, _key(plain)) for name, plain in state[1].items()}
        return made


class RowBuffer:
    """Collects rows and reduces them. One row is open at a time and may still get values; the others are closed.

    Each value is converted once at most.

    Attributes:
        best: The values at the row where the monitored metric was best; None without a finite one in a closed row.
        kept: The values of the model that is kept; without values where it was kept before there was one.
    """

    def __init__(self, report: Report, monitor: str | None, mode: Mode | None, numbers: Numbers) -> None:
        self._report = report
        self._monitor = monitor
        self._mode = mode
        self._numbers = numbers
        self.latest = Values()
        self.best: Values | None = None
        self.kept: Values | None = None
        self._best_value: float | None = None
        self._history: list[Row] = []
        self._open_key: Hashable = None  # None: no row is open
        self._open: dict[str, Any] = {}  # what the reduction needs of the open row, beside the latest values
        self._opened_at: datetime | None = None

    def add(self, values: dict[str, Any], *, key: Hashable, now: Callable[[], datetime]) -> bool:
        """Take fresh values, to keep; return whether they began a new row. The key None adds to the open one."""
        is_new_row = self._open_key is None or (key is not None and key != self._open_key)
        if is_new_row:
            if self._open or self._opened_at is not None:
                self.close()
            self._open_key = key = _UNNAMED if key is None else key
            self.latest.begin(key)
        if self._report == "history":  # of which nobody asks what is older than what
            if is_new_row:
                self._open, self._opened_at = values, now()
            else:
                self._open.update(values)
            self.latest.values.update(values)
        else:
            self.latest.take(values)
            if self._monitor is not None and self._monitor in values:
                self._open[self._monitor] = values[self._monitor]
        return is_new_row

    def is_fresh(self, name: str) -> bool:
        """Return whether the last row has a value of this name."""
        if self._report == "history":
            return name in self._open
        return name in self.latest.values and self.latest.origin(name) == self.latest.key

    @property
    def place(self) -> Place:
        """The place of the last row."""
        epoch, step, _ = self.latest.key if isinstance(self.latest.key, tuple) else (None, None, 0)
        return Place(self.latest.row_count, epoch, step)

    def close(self) -> None:
        """Reduce the open row. The first of equally good rows is the best one, as it is for the frameworks."""
        self._open_key = None
        if self._opened_at is not None:
            is_converted = _FLOAT.issuperset(map(type, self._open.values()))
            values = self._open if is_converted else self._numbers.convert(self._open)
            self._history.append(Row(self._opened_at, values))
            self._open, self._opened_at = {}, None
        elif self._open and self._monitor is not None:
            value = self._open.pop(self._monitor)
            number = value if type(value) is float else self._numbers.number(self._monitor, value)
            if number is not None and math.isfinite(number):
                self.latest.values[self._monitor] = number
                best = self._best_value
                if best is None or (number < best if self._mode == "min" else number > best):
                    self._best_value, self.best = number, self.latest.copy()

    def keep(self, model: Values | None = None, scores: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Note that a model is kept in the place of the one before: that of these values, by default of the latest.

        ``scores`` are what it was kept for, where that may be younger than the latest values.
        """
        self.kept = self.latest.copy() if model is None else model
        self.kept.take(scores)

    def of_model(self, *, is_kept_wanted: bool) -> Values | None:
        """Return the values of the kept or the best model; None where the latest ones or all rows are reported."""
        return self.kept if is_kept_wanted and self.kept is not None and self.kept.values else self.best

    def reduced(self, now: datetime, *, is_kept_wanted: bool = False) -> list[Row]:
        """Return the rows to report in order of time; ``best`` without a best row is the latest values, at ``now``."""
        self.close()
        if self._report == "history":
            return list(self._history)
        values = (self.of_model(is_kept_wanted=is_kept_wanted) or self.latest).values
        return [Row(now, dict(values))] if values else []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats. Converts what is held, in place."""
        models = [each for each in (self.latest, self.best, self.kept) if each is not None]
        held = [self._open, *(each.values for each in models)]
        numbers: dict[int, float | None] = {}  # one value often stands in several of these
        for values in held:
            for name, value in values.items():
                if id(value) not in numbers:
                    numbers[id(value)] = self._numbers.number(name, value)
        for values in held:
            converted = {name: numbers[id(value)] for name, value in values.items()}
            values.clear()
            values.update({name: number for name, number in converted.items() if number is not None})
        latest, since, last = self.latest.state()
        return {
            "latest": latest,
            "row_count": self.latest.row_count,
            "last": last,
            "since": since,
            "open": None if self._open_key is None else [_time(self._opened_at), dict(self._open)],
            "best": None if self.best is None else self.best.state(),
            "best_value": self._best_value,
            "kept": None if self.kept is None else self.kept.state(),
            "history": [[_time(row.timestamp), dict(row.values)] for row in self._history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.latest = Values.of([state["latest"], state["since"], state["last"]], state["row_count"])
        if state["open"] is not None:
            timestamp, values = state["open"]
            self._open_key, self._open = _RESUMED, dict(values)
            self._opened_at = parse_timestamp(timestamp) if self._report == "history" else None
        self.best = None if state["best"] is None else Values.of(state["best"])
        self._best_value = state["best_value"]
        self.kept = None if state["kept"] is None else Values.of(state["kept"])
        self._history = [Row(parse_timestamp(timestamp), dict(values)) for timestamp, values in state["history"]]


def _time(timestamp: datetime | None) -> str | None:
    return None if timestamp is None else format_timestamp(timestamp)


def _plain(key: Hashable) -> Any:
    return list(key) if isinstance(key, tuple) else key


def _key(plain: Any) -> Hashable:
    return tuple(plain) if isinstance(plain, list | tuple) else plain
