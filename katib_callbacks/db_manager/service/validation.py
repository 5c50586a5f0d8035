"""Checks of a request, made before the store is touched.

Katib's own DB manager dies of some of these requests and stores half of what others mean.
"""

from datetime import datetime
from typing import Any

from katib_callbacks.db_manager.store.errors import TooLargeError
from katib_callbacks.db_manager.store.table import Log, column_time
from katib_callbacks.metrics import (
    MAX_VALUE_BYTES,
    name_problem,
    parse_timestamp,
    text_problem,
)

MAX_REQUEST_ROWS = 100_000
"""Six times what Katib's own manager takes in a request. Small rows weigh many times more in memory than in bytes."""


_SURELY_SHORT = MAX_VALUE_BYTES // 4  # characters
_TIME_CHARACTERS = 27


class InvalidRequestError(ValueError):
    """The request can never be answered; the message names row and field. Leaves the server as INVALID_ARGUMENT."""


def check_trial_name(request: Any) -> str:
    """Return the request's trial name; InvalidRequestError if it is empty, over 255 characters, or has a NUL."""
    return _checked_name("trial_name", request.trial_name)


def report_logs(request: Any) -> list[Log]:
    """Return the rows of a ``ReportObservationLogRequest``, their times in UTC and cut to microseconds."""
    if not request.HasField("observation_log"):
        raise InvalidRequestError("observation_log is not set")
    metric_logs = request.observation_log.metric_logs
    if not metric_logs:
        raise InvalidRequestError("observation_log.metric_logs is empty")
    if len(metric_logs) > MAX_REQUEST_ROWS:
        raise TooLargeError(
            f"observation_log.metric_logs has {len(metric_logs)} rows, larger than max ({MAX_REQUEST_ROWS})"
        )
    names: set[str] = set()
    logs = []
    for index, log in enumerate(metric_logs):
        metric = log.metric
        name, value, text = metric.name, metric.value, log.time_stamp
        if name not in names:
            _check_metric_name(index, log)
            names.add(name)
        if "\0" in value or len(value) > _SURELY_SHORT:
            _check_value(index, value)
        time = _quick_time(text) or column_time(_time(f"observation_log.metric_logs[{index}].time_stamp", text))
        logs.append((time, name, value))
    return logs


def filters(request: Any) -> tuple[str, datetime | None, datetime | None]:
    """Return metric name (empty: all), start and end of a ``GetObservationLogRequest``."""
    metric_name = _checked_name("metric_name", request.metric_name) if request.metric_name else ""
    start, end = (
        _time(field, getattr(request, field)) if getattr(request, field) else None
        for field in ("start_time", "end_time")
    )
    return metric_name, start, end


def _check_metric_name(index: int, log: Any) -> None:
    place = f"observation_log.metric_logs[{index}].metric"
    if not log.HasField("metric"):
        raise InvalidRequestError(f"{place} is not set")
    _checked_name(f"{place}.name", log.metric.name)


def _check_value(index: int, value: str) -> None:
    place = f"observation_log.metric_logs[{index}].metric.value"
    problem = text_problem(value)
    if problem:
        raise InvalidRequestError(f"{place} {problem}")
    size = len(value.encode())
    if size > MAX_VALUE_BYTES:
        raise InvalidRequestError(f"{place} has {size} bytes; Katib stores at most {MAX_VALUE_BYTES}")


def _quick_time(text: str) -> str | None:
    """Return the time of a row if it is written as our clients write it, ``2026-01-31T12:00:00.123456Z``."""
    if len(text) != _TIME_CHARACTERS or text[10] != "T" or text[19] != "." or text[26] != "Z" or not text.isascii():
        return None
    digits = text[:4] + text[5:7] + text[8:10] + text[11:13] + text[14:16] + text[17:19] + text[20:26]
    if not digits.isdigit() or text[4] != "-" or text[7] != "-" or text[13] != ":" or text[16] != ":":
        return None
    time = f"{text[:10]} {text[11:26]}"
    try:
        datetime.fromisoformat(time)
    except ValueError:  # which the other way explains
        return None
    return time


def _checked_name(field: str, name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise InvalidRequestError(f"{field} {problem}")
    return name


def _time(field: str, text: str) -> datetime:
    if not text:
        raise InvalidRequestError(f"{field} is empty")
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: {error}") from error
