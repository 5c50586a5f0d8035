"""What a request must be before the store is touched.

Katib's own DB manager dies of some of these requests and stores half of others' meaning; here each one is refused with
the row and the field that are at fault.
"""

from datetime import datetime
from typing import Any

from katib_callbacks.db_manager.store.errors import TooLargeError
from katib_callbacks.metrics import (
    MAX_VALUE_BYTES,
    StoredMetricLog,
    name_problem,
    parse_timestamp,
    text_problem,
)

MAX_REQUEST_ROWS = 100_000
"""Six times what Katib's own manager takes in a request. Small rows weigh many times more in memory than in bytes."""


class InvalidRequestError(ValueError):
    """The request can never be answered; the message names row and field. Leaves the server as INVALID_ARGUMENT."""


def check_trial_name(request: Any) -> str:
    """Return the request's trial name.

    Raises:
        InvalidRequestError: It is empty, over 255 characters, or has a NUL.
    """
    return _checked_name("trial_name", request.trial_name)


def report_rows(request: Any) -> list[StoredMetricLog]:
    """Return the rows of a ``ReportObservationLogRequest``, their times in UTC and cut to microseconds.

    Raises:
        InvalidRequestError: There are none, or one of them cannot be stored.
        TooLargeError: There are too many.
    """
    if not request.HasField("observation_log"):
        raise InvalidRequestError("observation_log is not set")
    if not request.observation_log.metric_logs:
        raise InvalidRequestError("observation_log.metric_logs is empty")
    count = len(request.observation_log.metric_logs)
    if count > MAX_REQUEST_ROWS:
        raise TooLargeError(f"observation_log.metric_logs has {count} rows, larger than max ({MAX_REQUEST_ROWS})")
    return [
        _row(f"observation_log.metric_logs[{index}]", log)
        for index, log in enumerate(request.observation_log.metric_logs)
    ]


def filters(request: Any) -> tuple[str, datetime | None, datetime | None]:
    """Return metric name (empty: all), start and end of a ``GetObservationLogRequest``.

    Raises:
        InvalidRequestError: One of them is set to something that no row can have.
    """
    metric_name = _checked_name("metric_name", request.metric_name) if request.metric_name else ""
    start, end = (
        _time(field, getattr(request, field)) if getattr(request, field) else None
        for field in ("start_time", "end_time")
    )
    return metric_name, start, end


def _row(place: str, log: Any) -> StoredMetricLog:
    if not log.HasField("metric"):
        raise InvalidRequestError(f"{place}.metric is not set")
    name = _checked_name(f"{place}.metric.name", log.metric.name)
    value = log.metric.value
    problem = text_problem(value)
    if problem:
        raise InvalidRequestError(f"{place}.metric.value {problem}")
    size = len(value.encode())
    if size > MAX_VALUE_BYTES:
        raise InvalidRequestError(f"{place}.metric.value has {size} bytes; Katib stores at most {MAX_VALUE_BYTES}")
    return StoredMetricLog(name, value, _time(f"{place}.time_stamp", log.time_stamp))


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
