"""Metric logs, as sent and as stored, and the conversions that both ends share.

The wire carries strings alone. A value goes out as the shortest decimal that reads back as the same number in its own
precision; a timestamp as RFC 3339 in UTC with six digits, because MySQL truncates and PostgreSQL rounds anything finer.
"""

import functools
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from katib_callbacks.errors import MetricValueError

MAX_NAME_CHARACTERS = 255
"""Katib's columns ``trial_name`` and ``metric_name`` are VARCHAR(255) (pkg/db/v1beta1/mysql/init.go)."""

MAX_VALUE_BYTES = 65_535
"""Katib's column ``value`` is TEXT, which MySQL limits to this many bytes of UTF-8."""

RESOLUTION = timedelta(microseconds=1)
"""Katib's column ``time`` is DATETIME(6): timestamps of one trial must differ by at least this much."""

_FLOAT32 = struct.Struct("f")

# Go's time.RFC3339Nano, which Katib parses with: an upper-case T and Z, a colon in the offset, any number of digits.
# These patterns are compiled, and kept by ``re``, on first use: a trial that reports Python floats needs neither.
_RFC3339 = r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:Z|([+-])(\d{2}):(\d{2}))"
_REDUCED_PRECISION = r"\b(bfloat16|float16|half|float32)\b"


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


def check_name(name: object) -> str:
    """Return ``name`` if it can be a metric's name in Katib.

    Raises:
        MetricValueError: It is no string, empty, over 255 characters, or has a NUL or a lone surrogate.
    """
    if not isinstance(name, str):
        raise MetricValueError(f"a metric's name must be a str, not {type(name).__name__}: {name!r}")
    problem = name_problem(name)
    if problem:
        raise MetricValueError(f"metric name {_shorten(name)!r} {problem}")
    return name


def name_problem(name: str) -> str | None:
    """Say what is wrong with a trial's or a metric's name, for a message; None if nothing is."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"has {len(name)} characters; Katib stores at most {MAX_NAME_CHARACTERS}"
    return text_problem(name)


def text_problem(text: str) -> str | None:
    """Say why ``text`` cannot be stored at all, for a message; None if it can."""
    if "\0" in text:
        return "has a NUL character, which PostgreSQL cannot store"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which cannot be sent as UTF-8"
    return None


def to_number(name: str, value: Any) -> float:
    """Convert one scalar to a float, rounded to the shortest decimal of its own precision.

    A float32 0.9 (0.899999976158...) becomes 0.9, because that decimal reads back as the same float32.

    Args:
        name: The metric's name, for the message.
        value: An int or float; a one-element torch, numpy, JAX or TensorFlow array of any shape; anything with
            ``__float__``. Reading a value that lies on an accelerator waits for it.

    Raises:
        MetricValueError: A bool, str, bytes, None, container, complex number, an array of another size than one, or
            something that raises when it is read (a meta tensor, a deleted array).
    """
    if type(value) is float:
        return value
    try:
        number, is_exact_float = _to_python(value)
        return number if is_exact_float else _shortest(number, str(getattr(value, "dtype", "")))
    except MetricValueError as error:
        raise MetricValueError(f"metric {name!r}: {error}") from error
    except Exception as error:
        raise MetricValueError(
            f"metric {name!r}: a {_describe_type(value)} cannot be read as a number: {_first_line(error)}"
        ) from error


def _to_python(value: Any) -> tuple[float, bool]:
    """Return the Python float of ``value`` and whether its precision is known to be that of a Python float."""
    if type(value).__module__.startswith("numpy.ma") and value.mask.all():  # its item() is a 0.0 that nobody measured
        raise MetricValueError(f"a {_describe_type(value)} is masked, so it has no value")
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # what nearly all are, and read in every epoch
        scalar = value.item()
        if type(scalar) is float or type(scalar) is int:
            return float(scalar), False
    if isinstance(value, (bool, str, bytes, bytearray, complex)) or value is None:
        raise MetricValueError(f"a {type(value).__name__} is not a number ({_shorten(repr(value))})")
    if isinstance(value, (int, float)) and not hasattr(value, "dtype"):
        return float(value), True
    scalar = _only_element(value)
    if isinstance(scalar, (bool, str, bytes, complex)) or scalar is None:
        raise MetricValueError(f"a {_describe_type(value)} holding a {type(scalar).__name__} is not a number")
    if not hasattr(scalar, "__float__") and not hasattr(scalar, "__index__"):
        raise MetricValueError(f"a {_describe_type(value)} is not a number")
    return float(scalar), False


def _only_element(value: Any) -> Any:
    """Return the element of an array, and what is no array as it is."""
    array = value.numpy() if not hasattr(value, "item") and hasattr(value, "numpy") else value  # TensorFlow
    if not hasattr(array, "item"):
        return array
    size = _element_count(array)
    if size is not None and size != 1:
        raise MetricValueError(f"a {_describe_type(value)} with {size} elements is not a scalar")
    if getattr(array, "shape", None):  # older JAX calls float(), which numpy is giving up for these
        array = array.reshape(())
    return array.item()


def _element_count(array: Any) -> int | None:
    count = array.numel() if callable(getattr(array, "numel", None)) else getattr(array, "size", None)
    return count if isinstance(count, int) else None


def _shortest(number: float, dtype: str) -> float:
    """Return the float of the shortest decimal that reads back as ``number`` in the precision of ``dtype``."""
    round_trip = _round_trip(dtype)
    if round_trip is None or not math.isfinite(number):
        return number
    # What a person chose has few digits, what was computed in float32 has 7 to 9, and 9 tell any two of them apart. If
    # some digits read back, so do more: two tries tell where to search.
    if round_trip(float(f"{number:.6g}")) == number:
        first, last = 1, 6
    elif round_trip(float(f"{number:.8g}")) == number:
        first, last = 7, 8
    else:
        first, last = 9, 9
    for digits in range(first, last):
        candidate = float(f"{number:.{digits}g}")
        if round_trip(candidate) == number:
            return candidate
    return float(f"{number:.{last}g}")


@functools.lru_cache
def _round_trip(dtype: str) -> Callable[[float], float] | None:
    """Return what rounds to the precision of ``dtype``; None if it is that of a Python float."""
    match = re.search(_REDUCED_PRECISION, dtype)
    return None if match is None else {"float32": _as_float32, "bfloat16": _as_bfloat16}.get(match[1], _as_float16)


def _as_float32(number: float) -> float:
    try:
        result: float = _FLOAT32.unpack(_FLOAT32.pack(number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return result


def _as_float16(number: float) -> float:
    try:
        result: float = struct.unpack("e", struct.pack("e", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return result


def _as_bfloat16(number: float) -> float:
    """Round to bfloat16, the upper half of a float32, ties to even."""
    bits: int = struct.unpack("<I", struct.pack("<f", _as_float32(number)))[0]
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    result: float = struct.unpack("<f", struct.pack("<I", rounded))[0]
    return result


def format_value(number: float) -> str:
    """Return the shortest decimal that reads back as ``number``: ``0.9``, ``5``, ``1e-07``, ``nan``, ``inf``."""
    return repr(float(number)).removesuffix(".0")


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
        raise ValueError(f"{_shorten(text)!r} is not an RFC 3339 timestamp such as 2026-01-31T12:00:00.123456Z")
    *date_and_time, fraction, sign, offset_hours, offset_minutes = match.groups()
    year, month, day, hour, minute, second = map(int, date_and_time)
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    if offset >= timedelta(days=1) or int(offset_minutes or 0) >= 60:  # noqa: PLR2004  minutes in an hour
        raise ValueError(f"{_shorten(text)!r} has an impossible offset from UTC")
    try:
        local = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=timezone.utc)
        return local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{_shorten(text)!r} is not a time: {error}") from error


def _describe_type(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]} {kind.__name__}"


def _first_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  an error of somebody else's, which may fail in this, too
        text = ""
    return _shorten(text.split("\n", 1)[0] or type(error).__name__)


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
