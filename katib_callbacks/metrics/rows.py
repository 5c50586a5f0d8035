"""One row of a metric: as it is sent, and as a DB manager holds it."""

from dataclasses import dataclass
from datetime import datetime, timezone

from katib_callbacks.errors import MetricValueError
from katib_callbacks.metrics.names import check_name
from katib_callbacks.metrics.scalars import to_number

MAX_VALUE_BYTES = 65_535
"""Katib's column ``value`` is TEXT, which MySQL limits to this many bytes of UTF-8."""


@dataclass(frozen=True)
class MetricLog:
    """One row to be sent.

    Args:
        name: The metric's name in Katib, 1 to 255 characters, no NUL.
        value: The number. NaN and the infinities are allowed here and are a decision of the caller: Katib reads them,
            and a NaN that comes first pins its min and max.
        timestamp: Timezone-aware; held in UTC with microseconds.

    Raises:
        MetricValueError: The name, the value or the timestamp cannot be sent.
    """

    name: str
    value: float
    timestamp: datetime

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "value", to_number(self.name, self.value))
        if not isinstance(self.timestamp, datetime) or self.timestamp.utcoffset() is None:
            raise MetricValueError(
                f"metric {self.name!r}: the timestamp must be a timezone-aware datetime, not {self.timestamp!r}"
            )
        try:
            object.__setattr__(self, "timestamp", _plain_utc(self.timestamp))
        except OverflowError as error:
            raise MetricValueError(
                f"metric {self.name!r}: the timestamp {self.timestamp!r} lies outside the years 1 to 9999 in UTC"
            ) from error


@dataclass(frozen=True)
class StoredMetricLog:
    """One row as a DB manager holds it.

    Args:
        name: The metric's name in Katib.
        value: The value's text: usually a decimal, but also ``unavailable`` or whatever another client wrote.
        timestamp: Timezone-aware, UTC.
    """

    name: str
    value: str
    timestamp: datetime


def _plain_utc(timestamp: datetime) -> datetime:
    """Return what a DB manager will answer: a pandas.Timestamp has nanoseconds, so it equals nothing that is stored."""
    utc = timestamp.astimezone(timezone.utc)
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=timezone.utc
    )
