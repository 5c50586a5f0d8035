"""A trial's rows in the observation log: read and written over gRPC, parsed from its output, reduced as Katib does."""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc

from katib_callbacks.errors import RejectedError, UnavailableError
from katib_callbacks.metrics import RESOLUTION, StoredMetricLog, format_timestamp, name_problem, parse_timestamp
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

UNAVAILABLE = "unavailable"
"""Katib's word for a metric without a value (pkg/controller.v1beta1/consts/const.go)."""

UNAVAILABLE_TIME = datetime(1, 1, 1, tzinfo=timezone.utc)
"""The time of the row that says so: Go's zero time."""

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
"""Katib's (pkg/metricscollector/v1beta1/common/const.go)."""

CALL_TIMEOUT_S = 30.0
BUDGET_S = 120.0
"""For one step, over all tries: a DB manager that was killed is back within seconds, so longer means a real fault."""

MAX_ROWS = 1_000
"""Rows in one request: Katib's DB manager takes 16,383, and its cost is quadratic."""

_RETRY_INTERVAL_S = 0.05
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class ObservationLog:
    """The rows of trials in a DB manager that may be killed and come back at the same address.

    Args:
        address: The DB manager's.
        revive: Called before each further try; brings it back.
    """

    def __init__(self, address: str, revive: Callable[[], None] = lambda: None) -> None:
        self._channel = grpc.insecure_channel(address, options=_GRPC_OPTIONS)
        self._stub = DBManagerStub(self._channel)
        self._revive = revive

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> "ObservationLog":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def get(self, trial: str) -> list[StoredMetricLog]:
        """Return a trial's rows, ordered by time."""
        rows: list[StoredMetricLog] = []
        for is_done in self._tries():
            with is_done:
                rows = self._stub.get(trial, timeout_s=CALL_TIMEOUT_S)
        return rows

    def delete(self, trial: str) -> None:
        """Delete a trial's rows."""
        for is_done in self._tries():
            with is_done:
                self._stub.delete(trial, timeout_s=CALL_TIMEOUT_S)

    def replace(self, trial: str, rows: Sequence[StoredMetricLog]) -> None:
        """Let these be the rows of a trial that nobody else writes for.

        What was there is deleted first at each try, so that a lost reply leaves nothing twice.
        """
        for is_done in self._tries():
            with is_done:
                self._stub.delete(trial, timeout_s=CALL_TIMEOUT_S)
                self._append(trial, rows)

    def mark_unavailable(self, trial: str, metric: str) -> None:
        """Add the row that says that a metric was not reported; the caller has seen that it is not there."""
        row = StoredMetricLog(metric, UNAVAILABLE, UNAVAILABLE_TIME)
        for number, is_done in enumerate(self._tries()):
            with is_done:
                # After a lost reply it may be there.
                if not number or row not in self._stub.get(trial, metric_name=metric, timeout_s=CALL_TIMEOUT_S):
                    self._append(trial, [row])

    def _append(self, trial: str, rows: Sequence[StoredMetricLog]) -> None:
        call: Any = self._channel.unary_unary(
            methods.REPORT_OBSERVATION_LOG, response_deserializer=messages.ReportObservationLogReply.FromString
        )
        for first in range(0, len(rows), MAX_ROWS):
            log = messages.ObservationLog(metric_logs=[metric_log(row) for row in rows[first : first + MAX_ROWS]])
            request = messages.ReportObservationLogRequest(trial_name=trial, observation_log=log)
            call(request.SerializeToString(), timeout=CALL_TIMEOUT_S)

    def _tries(self) -> "Iterator[_Try]":
        give_up_at_s = time.monotonic() + BUDGET_S
        attempts = 0
        while True:
            attempts += 1
            current = _Try()
            yield current
            if current.error is None:
                return
            if time.monotonic() > give_up_at_s:
                raise UnavailableError(
                    f"no answer from the DB manager within {BUDGET_S:g} s: {current.error}", attempts=attempts
                ) from current.error
            self._revive()
            time.sleep(_RETRY_INTERVAL_S)


class _Try:
    """One try, as a context manager: swallows a failure that may pass, and keeps it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, grpc.RpcError):
            return False
        code = error.code() if isinstance(error, grpc.Call) else None
        if code not in _RETRIED:
            raise RejectedError(f"the DB manager answered: {error}", attempts=1) from error
        self.error = error
        return True


def metric_log(row: StoredMetricLog) -> Any:
    """Return the row as Katib's message, with ``time_stamp`` and ``metric``."""
    return messages.MetricLog(
        time_stamp=format_timestamp(row.timestamp), metric=messages.Metric(name=row.name, value=row.value)
    )


def parse_output(
    lines: Sequence[str], metrics: Sequence[str], filters: Sequence[str], now: datetime
) -> list[StoredMetricLog]:
    """Find a trial's metrics in its output, as Katib's StdOut collector does.

    A line's time is the RFC 3339 timestamp that it begins with, else ``now``, a microsecond later for each row. Two
    things differ from Katib: its time without a timestamp is the year 1, which orders nothing, and a match without a
    number (``loss=nan``) gives a row with an empty value, which breaks its suggestion service; here it gives none.

    Args:
        lines: The output.
        metrics: The names to look for.
        filters: Regular expressions with two groups, the name and the value; Katib's if there is none.
        now: Timezone-aware.
    """
    patterns = [re.compile(pattern) for pattern in filters or (DEFAULT_FILTER,)]
    rows = []
    for line in lines:
        if not any(name in line for name in metrics):
            continue
        timestamp = _time_of(line)
        for pattern in patterns:
            for match in pattern.finditer(line):
                name, value = (match[1] or "").strip(), (match[2] or "").strip()
                if name in metrics and _number(value) is not None:
                    rows.append(StoredMetricLog(name, value, timestamp or now))
                    now = now if timestamp else now + RESOLUTION
    return rows


def read_output(log: Path) -> list[str]:
    """Return the lines of a trial's output; what is no UTF-8 is replaced."""
    try:
        return log.read_text("utf-8", errors="replace").replace("\0", "").splitlines()
    except FileNotFoundError:
        return []


def _time_of(line: str) -> datetime | None:
    try:
        return parse_timestamp(line.partition(" ")[0])
    except ValueError:
        return None


def reduce(rows: Sequence[StoredMetricLog], metrics: Sequence[str]) -> list[dict[str, str]]:
    """Return ``min``, ``max`` and ``latest`` of the declared metrics, as strings that were reported.

    As Katib's trial controller does (trial_controller_util.go, getMetrics): values that are no numbers count for
    ``latest`` alone, a NaN that comes first stays, and of equal times the later row is the latest.
    """
    reduced = {name: {"name": name, "min": UNAVAILABLE, "max": UNAVAILABLE, "latest": UNAVAILABLE} for name in metrics}
    for row in sorted(rows, key=lambda row: row.timestamp):
        metric = reduced.get(row.name)
        if metric is None:
            continue
        metric["latest"] = row.value
        number = _number(row.value)
        if number is None:
            continue
        if metric["min"] == UNAVAILABLE:
            metric["min"] = metric["max"] = row.value
        elif number < float(metric["min"]):
            metric["min"] = row.value
        elif number > float(metric["max"]):
            metric["max"] = row.value
    return list(reduced.values())


def objective_text(observation: Sequence[Mapping[str, str]], metric: str, strategy: str) -> str:
    """Return the objective that counts, as a string; ``unavailable`` if there is none."""
    for one in observation:
        if one["name"] == metric:
            return one["latest"] if one[strategy] == UNAVAILABLE else one[strategy]
    return UNAVAILABLE


def objective_value(text: str) -> float | None:
    """Return the objective as a number that an algorithm can learn from; None for any other."""
    number = _number(text)
    return number if number is not None and math.isfinite(number) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def printable_name(name: str) -> bool:
    """Say whether a metric's name can be stored."""
    return name_problem(name) is None


@contextmanager
def opened(db_url: str) -> Iterator[ObservationLog]:
    """Serve the log for a moment, for reading and deleting while no runner does."""
    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415  loads SQLAlchemy

    with DBManager(db_url, "127.0.0.1:0") as db_manager, ObservationLog(db_manager.address) as log:
        yield log
