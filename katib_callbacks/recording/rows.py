"""RowBuffer: the values of one training run, and what is left of them when it is over."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from katib_callbacks.metrics import format_timestamp, parse_timestamp
from katib_callbacks.reporting.progress import Place
from katib_callbacks.settings import Mode, Report

_FLOAT = frozenset({float})

_RESUMED = "resumed"
"""The key of the row that was open when a checkpoint was written; no framework's epoch or step equals it."""


class Position(NamedTuple):
    """A place in a training, from epoch 1 or in optimizer steps; ``number`` tells rows of one step apart."""

    epoch: int | None = None
    step: int | None = None
    number: int = 0


def older(position: Position, model: Position) -> tuple[str, int | None]:
    """Return where a value is from, such as ``epoch 8``, and in the same unit where its model is from."""
    if position.epoch is not None and position.epoch != model.epoch:
        return f"epoch {position.epoch}", model.epoch
    return f"step {position.step}", model.step


@dataclass
class Row:
    """The values that were fresh at one moment of the training, usually an epoch's end; floats once converted."""

    key: Hashable
    timestamp: datetime
    values: dict[str, Any]


@dataclass
class ModelRow:
    """The values of one model: ``since`` has for each name the key of the row that its value is from."""

    values: dict[str, Any]
    since: dict[str, Hashable]
    key: Hashable


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
        self._best: ModelRow | None = None
        self._best_value: float | None = None
        self._kept: ModelRow | None = None
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

    @property
    def place(self) -> Place:
        """The place of the last row."""
        epoch, step = (getattr(self.last, name, None) for name in ("epoch", "step"))
        return Place(self.row_count, epoch, step)

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
                    self._best = self._latest_row()

    def keep(self, row: ModelRow | None = None, scores: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Note that a model is kept in the place of the one before: that of ``row``, by default as it is now.

        ``scores`` are what it was kept for, where that may be younger than the latest values.
        """
        self._kept = self._latest_row() if row is None else row
        self._kept.values.update(scores)
        self._kept.since.update(dict.fromkeys(scores, self._kept.key))

    def keep_none(self) -> None:
        """Note that no model is kept after all."""
        self._kept = None

    def _latest_row(self) -> ModelRow:
        return ModelRow(dict(self.latest), dict(self.since), self.last)

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
        """Whether a model was kept whose values are known."""
        return self._kept is not None and bool(self._kept.values)

    @property
    def is_kept_unknown(self) -> bool:
        """Whether a model was kept before there was a value."""
        return self._kept is not None and not self._kept.values

    def of_model(self, *, is_kept_wanted: bool) -> ModelRow | None:
        """Return the row of the kept or the best model; None where the latest values or all rows are reported."""
        if is_kept_wanted and self.has_kept:
            return self._kept
        return self._best

    def reduced(self, now: datetime, *, is_kept_wanted: bool = False) -> list[Row]:
        """Return the rows to report in order of time; ``best`` without a best row is the latest values, at ``now``."""
        self.close()
        if self._report == "history":
            return list(self._history)
        model = self.of_model(is_kept_wanted=is_kept_wanted)
        values = self.latest if model is None else model.values
        return [Row(None, now, dict(values))] if values else []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats. Converts what is held, in place."""
        held = [self.latest]
        if self._open is not None:
            held.append(self._open.values)
        held += [model.values for model in (self._best, self._kept) if model is not None]
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
            "since": _listed_all(self.since),
            "open": None if self._open is None else _plain(self._open),
            "best": _plain_model(self._best),
            "best_value": self._best_value,
            "kept": _plain_model(self._kept),
            "history": [_plain(row) for row in self._history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.latest = dict(state["latest"])
        self.row_count = state["row_count"]
        self.last = _position(state["last"])
        self.since = _positions(state["since"])
        self._open = None if state["open"] is None else _row(state["open"])
        self._best = _model(state["best"])
        self._best_value = state["best_value"]
        self._kept = _model(state["kept"])
        self._history = [_row(plain) for plain in state["history"]]


def _plain(row: Row) -> list[Any]:
    return [format_timestamp(row.timestamp), dict(row.values)]


def _row(plain: list[Any]) -> Row:
    timestamp, values = plain
    return Row(_RESUMED, parse_timestamp(timestamp), dict(values))


def _plain_model(model: ModelRow | None) -> list[Any] | None:
    return None if model is None else [dict(model.values), _listed_all(model.since), _listed(model.key)]


def _model(plain: list[Any] | None) -> ModelRow | None:
    return None if plain is None else ModelRow(dict(plain[0]), _positions(plain[1]), _position(plain[2]))


def _listed_all(since: Mapping[str, Hashable]) -> dict[str, Any]:
    return {name: _listed(key) for name, key in since.items()}


def _positions(plain: Mapping[str, Any]) -> dict[str, Hashable]:
    return {name: _position(key) for name, key in plain.items()}


def _listed(key: Hashable) -> Any:
    return list(key) if isinstance(key, Position) else key


def _position(key: Any) -> Hashable:
    return Position(*key) if isinstance(key, list | tuple) else key
