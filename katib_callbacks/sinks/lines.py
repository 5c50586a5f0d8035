"""LineSink: rows as lines that Katib's collectors of output and files read, one line for each row."""

import json
import logging
import math
import re
from collections.abc import Sequence

from katib_callbacks.errors import RejectedError
from katib_callbacks.metrics import MetricLog, format_timestamp, format_value
from katib_callbacks.sinks import SinkOptions, SinkOutcome
from katib_callbacks.sinks.collector import JSON, TEXT, Collector, collector_here
from katib_callbacks.sinks.safe_names import SafeNames

UNSAFE = r"[^A-Za-z0-9_|-]"
r"""Katib's filter takes names of ``[\w|-]`` (pkg/metricscollector/v1beta1/common/const.go); Go's ``\w`` is ASCII."""

_TIME_KEY = "timestamp"
"""Katib's key of a row's time in JSON."""

logger = logging.getLogger(__name__)


class LineSink:
    """Base of the sinks in front of a collector: lines such as ``2026-01-31T12:00:00.123456Z loss=0.5``.

    Katib's collector takes a row's time from the RFC 3339 timestamp that its line begins with; without one all rows of
    a trial have the same time, and no latest one. Where the collector reads JSON, a line is an object.
    """

    def __init__(self, options: SinkOptions, where: str) -> None:
        self._runtime = options.runtime
        self._where = where
        self._names = SafeNames(UNSAFE, f"{where}, where Katib's collector reads letters, digits and _|- alone,")
        self._unreadable: set[str] = set()

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Write the rows; see :class:`katib_callbacks.MetricSink`.

        A value that is not finite is rejected, the others are written: the collector would take it for no value, which
        breaks the experiment.
        """
        end_s = self._runtime.monotonic() + deadline_s
        finite = [log for log in logs if math.isfinite(log.value)]
        collector = collector_here(self._runtime, trial_name)
        self._write(self._lines(finite, collector), collector, end_s, row_count=len(logs))
        if len(finite) < len(logs):
            others = ", ".join(sorted({repr(log.name) for log in logs if not math.isfinite(log.value)}))
            raise RejectedError(
                f"{self._where}: values of {others} are not finite, and Katib's collector cannot read them",
                attempts=1,
                pending=len(logs) - len(finite),
            )
        return SinkOutcome(delivered=len(finite), attempts=1)

    def _write(self, lines: Sequence[str], collector: Collector | None, end_s: float, *, row_count: int) -> None:
        """Write all lines; a DeliveryError says which of so many rows could not be."""
        raise NotImplementedError

    def _lines(self, logs: Sequence[MetricLog], collector: Collector | None) -> list[str]:
        if self._format(collector) == JSON:
            self._say_unreadable([log.name for log in logs if log.name == _TIME_KEY], f"{_TIME_KEY!r} is a row's time")
            return [
                json.dumps({_TIME_KEY: format_timestamp(log.timestamp), log.name: format_value(log.value)}) + "\n"
                for log in logs
            ]
        filters = () if collector is None else collector.filters
        as_they_are = {log.name for log in logs if filters and _reads(filters, log.name, _line(log, log.name))}
        safe = self._names.of(log.name for log in logs if log.name not in as_they_are)
        names = {**safe, **{name: name for name in as_they_are}}
        lines = [_line(log, names[log.name]) for log in logs]
        if filters:
            read = zip(logs, lines, strict=True)
            unread = [log.name for log, line in read if not _reads(filters, names[log.name], line)]
            self._say_unreadable(unread, f"its filter, source.filter.metricsFormat, is {' '.join(map(repr, filters))}")
        return lines

    def _format(self, collector: Collector | None) -> str:
        return TEXT if collector is None else collector.file_format

    def _say_unreadable(self, names: Sequence[str], why: str) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._unreadable]
        self._unreadable.update(new)
        if new:
            logger.warning(
                "Katib's collector cannot read %s in the lines that are written to %s: %s.",
                ", ".join(map(repr, new)),
                self._where,
                why,
            )


def _line(log: MetricLog, name: str) -> str:
    return f"{format_timestamp(log.timestamp)} {name}={format_value(log.value)}\n"


def _reads(filters: Sequence[str], name: str, line: str) -> bool:
    """Return whether a filter finds the name with a value in its line; of a filter only Go can read it is assumed."""
    if len(line.splitlines()) != 1:
        return False
    try:
        found = [match for each in filters for match in re.compile(each, re.ASCII).finditer(line)]
        return any((match[1] or "").strip() == name and match[2] for match in found)
    except (re.error, IndexError):
        return re.search(UNSAFE, name) is None
