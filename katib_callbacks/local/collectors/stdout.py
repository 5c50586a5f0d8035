"""Katib's StdOut collector: metrics found in what a trial's primary process has written."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from katib_callbacks.local.api.go_regexp import compile_pattern
from katib_callbacks.metrics import RESOLUTION, StoredMetricLog, parse_timestamp
from katib_callbacks.metrics.scalars import as_number

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
"""Katib's (pkg/metricscollector/v1beta1/common/const.go)."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is read in pieces of this length: a bar of progress that never ends its line may be a gigabyte."""

PIECE_BYTES = 256 << 10
"""So much is read of one trial's output, a tenth of a second at worst, before the others have their turn."""


def parse_output(
    lines: Iterable[str], metrics: Sequence[str], filters: Sequence[str], now: datetime
) -> list[StoredMetricLog]:
    """Find a trial's metrics in its output, as Katib's StdOut collector does.

    Filters are Go's, with two groups. A line's time is the RFC 3339 timestamp that it begins with, else ``now``, a
    microsecond later for each row: Katib's would be the year 1, which orders nothing. A match without a number
    (``loss=nan``) gives no row: Katib's empty value breaks its suggestion service.
    """
    patterns = [compile_pattern(pattern) for pattern in filters or (DEFAULT_FILTER,)]
    rows = []
    for line in lines:
        if not any(name in line for name in metrics):
            continue
        timestamp = _time_of(line)
        for pattern in patterns:
            for match in pattern.finditer(line.encode()):
                name, value = ((match[group] or b"").decode(errors="replace").strip() for group in (1, 2))
                if name in metrics and as_number(value) is not None:
                    rows.append(StoredMetricLog(name, value, timestamp or now))
                    now = now if timestamp else now + RESOLUTION
    return rows


def read_output(log: Path) -> Iterator[str]:
    """Yield the lines of a trial's output, one at a time; what is no UTF-8 is replaced."""
    if not log.is_file():  # a folder, or a FIFO, which would be waited for
        return
    with log.open("rb") as file:
        while piece := file.readline(MAX_LINE_BYTES):
            yield from piece.decode("utf-8", errors="replace").replace("\0", "").splitlines()


class OutputReader:
    """Reads a trial's output while it is written, a bounded piece at a time."""

    def __init__(self, log: Path, metrics: Sequence[str], filters: Sequence[str]) -> None:
        self._log = log
        self._metrics = metrics
        self._filters = filters
        self._position = 0
        self._time = datetime.min.replace(tzinfo=timezone.utc)

    def read(self, now: datetime, *, is_ended: bool) -> tuple[list[StoredMetricLog], bool]:
        """Read up to ``PIECE_BYTES``; returns rows and whether that was all. At the end a cut line is a whole one."""
        try:
            file = self._log.open("rb")
        except FileNotFoundError:
            return [], True
        with file:
            file.seek(self._position)
            piece = file.read(PIECE_BYTES)
        is_all = len(piece) < PIECE_BYTES
        if not (is_all and is_ended):
            end = piece.rfind(b"\n") + 1
            piece = piece[: end or (len(piece) if not is_all else 0)]
        self._position += len(piece)
        self._time = max(now, self._time)
        lines = piece.decode("utf-8", errors="replace").replace("\0", "").splitlines()
        rows = parse_output(lines, self._metrics, self._filters, self._time)
        self._time += len(rows) * RESOLUTION
        return rows, is_all


def _time_of(line: str) -> datetime | None:
    try:
        return parse_timestamp(line.partition(" ")[0])
    except ValueError:
        return None
