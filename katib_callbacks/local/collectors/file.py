"""Katib's File collector: metrics found in a file that a trial writes, lines of text or of JSON."""

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from katib_callbacks.local.collectors.stdout import parse_output, read_output
from katib_callbacks.metrics import RESOLUTION, StoredMetricLog, parse_timestamp
from katib_callbacks.metrics.scalars import as_number

TEXT, JSON = "TEXT", "JSON"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_logger = logging.getLogger(__name__)


def collect_file(
    path: Path, file_format: str, metrics: Sequence[str], filters: Sequence[str], now: datetime
) -> list[StoredMetricLog]:
    """Return the rows of a trial's metrics file, ``TEXT`` as its output or ``JSON``; none if there is no file."""
    lines = read_output(path)
    return parse_json(lines, metrics, now) if file_format == JSON else parse_output(lines, metrics, filters, now)


def parse_json(lines: Iterable[str], metrics: Sequence[str], now: datetime) -> list[StoredMetricLog]:
    """Find metrics in lines that are JSON objects, as Katib does (file-metricscollector.go): ``{"loss": "0.5"}``.

    A value is a string. Katib leaves out numbers, and a line that is no object fails its collector, so that nothing is
    collected; both are said. The time is the key ``timestamp`` (RFC 3339 or seconds since 1970), else ``now``, a
    microsecond later for each row.
    """
    rows: list[StoredMetricLog] = []
    numbers: set[str] = set()
    for count, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        if not isinstance(item, dict):
            _logger.warning("line %d of the metrics file is not a JSON object, on which Katib's collector fails", count)
            return []
        timestamp = _time_of(item.get("timestamp"))
        for name in metrics:
            value = item.get(name)
            if isinstance(value, str) and as_number(value) is not None:
                rows.append(StoredMetricLog(name, value, timestamp or now))
                now = now if timestamp else now + RESOLUTION
            elif isinstance(value, (int, float)):
                numbers.add(name)
    for name in sorted(numbers):
        _logger.warning('%s is a number in the metrics file; Katib reads strings only: {"%s": "0.5"}', name, name)
    return rows


def _time_of(value: Any) -> datetime | None:
    try:
        if isinstance(value, str):
            return parse_timestamp(value)
        return _EPOCH + timedelta(seconds=value) if isinstance(value, (int, float)) else None
    except (ValueError, OverflowError):
        return None
