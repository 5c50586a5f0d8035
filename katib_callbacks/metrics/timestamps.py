"""Timestamps on the wire: RFC 3339 in UTC."""

import re
from datetime import datetime, timedelta, timezone

from katib_callbacks.metrics.names import shorten

RESOLUTION = timedelta(microseconds=1)
"""Katib's column ``time`` is DATETIME(6): timestamps of one trial must differ by at least this much."""

# Go's time.RFC3339Nano, which Katib parses with: an upper-case T and Z, a colon in the offset, any number of digits.
# Compiled, and kept by ``re``, on first use: a trial that only sends does not need it.
_RFC3339 = r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:Z|([+-])(\d{2}):(\d{2}))"


def format_timestamp(timestamp: datetime) -> str:
    """Return RFC 3339 in UTC with exactly six digits and ``Z``, the one form that every Katib database keeps."""
    utc = timestamp.astimezone(timezone.utc).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds") + "Z"


def parse_timestamp(text: str) -> datetime:
    """Return the UTC datetime of an RFC 3339 timestamp as Go's ``time.RFC3339Nano`` reads it, cut to microseconds.

    ``datetime.fromisoformat`` accepts more than Katib does and, on Python 3.10, not ``Z``.

    Raises:
        ValueError: Not such a timestamp, or outside the years 1 to 9999 in UTC.
    """
    match = re.fullmatch(_RFC3339, text, re.ASCII)
    if match is None:
        raise ValueError(f"{shorten(text)!r} is not an RFC 3339 timestamp such as 2026-01-31T12:00:00.123456Z")
    *date_and_time, fraction, sign, offset_hours, offset_minutes = match.groups()
    year, month, day, hour, minute, second = map(int, date_and_time)
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    if offset >= timedelta(days=1) or int(offset_minutes or 0) >= 60:  # noqa: PLR2004  minutes in an hour
        raise ValueError(f"{shorten(text)!r} has an impossible offset from UTC")
    try:
        local = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=timezone.utc)
        return local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{shorten(text)!r} is not a time: {error}") from error
