"""The file in which the callback of a local trial shows how far it is: a JSON object a line, written and read here.

An epoch costs one short append. The first epochs are all written, of a training with very many a part.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katib_callbacks.reporting.progress import Place
from katib_callbacks.settings import Runtime

FREE_BYTES = 1 << 20
"""How much is written without a thought: thousands of epochs."""

LATER_INTERVAL_S = 5.0
"""How often a line is written after that at most; a day of them has as much again."""

_FILE_MODE = 0o644

_NOT_OURS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Of a line that another program wrote: the trial's own may write there, too."""


class ProgressFile:
    """Takes the progress of one training, as a sink's ``progress`` does, and its rows."""

    def __init__(self, path: str, runtime: Runtime) -> None:
        self._path = path
        self._runtime = runtime
        self._written = 0
        self._due_s = -math.inf
        self._place: Place | None = None
        self._values: dict[str, float] = {}

    def take_row(self, place: Place, values: Mapping[str, float]) -> None:
        """Take fresh values of a row, for the next line."""
        self._values = {**(self._values if self._place == place else {}), **values}
        self._place = place

    def progress(self, fraction: float | None, remaining_s: float | None, latest: Mapping[str, float]) -> None:
        """Append a line, unless there were very many and another one a moment ago."""
        now_s = self._runtime.monotonic()
        is_first, is_last = self._written == 0, fraction == 1.0
        if self._written > FREE_BYTES and now_s < self._due_s and not is_last:
            return
        self._due_s = now_s + LATER_INTERVAL_S
        line: dict[str, Any] = {"fraction": fraction, "remaining_s": remaining_s}
        if is_first:
            line = {**line, "begins": True, "values": dict(latest)}
        if self._place is not None:
            line = {**line, **self._place._asdict(), "values": self._values}
            self._place, self._values = None, {}
        content = f"{json.dumps(line, separators=(',', ':'))}\n".encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        self._written += len(content)


@dataclass
class ShownProgress:
    """How far a trial is, as its file says.

    Args:
        fraction: The share that is done, 0 to 1; None if it is not known.
        remaining_s: Seconds that it will take yet; None if that is not known.
        place: The latest row; None before the first one.
        latest: The latest value of each metric.
        rows: The values of each row, in order; of several trainings in one trial those of all.
    """

    fraction: float | None = None
    remaining_s: float | None = None
    place: Place | None = None
    latest: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)


class ProgressReader:
    """Reads a trial's file as it grows; there need not be one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self.shown = ShownProgress()

    def read(self) -> ShownProgress:
        """Return what the file says now. A file that has become shorter is another attempt's."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self._position, self.shown = 0, ShownProgress()
                file.seek(self._position)
                data = file.read()
        except OSError:
            return self.shown
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            with suppress(*_NOT_OURS):
                self._take(json.loads(line))
        return self.shown

    def _take(self, line: dict[str, Any]) -> None:
        shown = self.shown
        shown.fraction, shown.remaining_s = line["fraction"], line["remaining_s"]
        if line.get("begins"):
            shown.place = None
        values = {str(name): float(value) for name, value in (line.get("values") or {}).items()}
        shown.latest.update(values)
        if line.get("row") is None:
            return
        place = Place(int(line["row"]), line["epoch"], line["step"])
        if shown.place is not None and shown.place.row == place.row:
            shown.rows[-1].update(values)
        else:
            shown.rows.append(values)
        shown.place = place
