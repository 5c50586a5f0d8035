"""Conversion of one scalar of any framework to a float, and of a float to its shortest decimal."""

import functools
import math
import re
import struct
from collections.abc import Callable
from typing import Any

from katib_callbacks.errors import MetricValueError
from katib_callbacks.metrics.names import shorten

_FLOAT32, _FLOAT16 = struct.Struct("f"), struct.Struct("e")

# Compiled, and kept by ``re``, on first use: a trial that reports Python floats does not need it.
_REDUCED_PRECISION = r"\b(bfloat16|float16|half|float32)\b"


def as_number(text: str) -> float | None:
    """Return the number that a text is, as Go and Python read one; None if it is none, as Katib's ``unavailable``."""
    try:
        return float(text)
    except ValueError:
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
        raise MetricValueError(f"a {type(value).__name__} is not a number ({shorten(repr(value))})")
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
    size = array.numel() if callable(getattr(array, "numel", None)) else getattr(array, "size", None)
    if isinstance(size, int) and size != 1:
        raise MetricValueError(f"a {_describe_type(value)} with {size} elements is not a scalar")
    if getattr(array, "shape", None):  # older JAX calls float(), which numpy is giving up for these
        array = array.reshape(())
    return array.item()


def _shortest(number: float, dtype: str) -> float:
    """Return the float of the shortest decimal that reads back as ``number`` in the precision of ``dtype``."""
    round_trip = _round_trip(dtype)
    if round_trip is None or not math.isfinite(number):
        return number
    # A number that a person chose has few digits, one computed in float32 has 7 to 9, and 9 tell any two apart. If some
    # digits read back, so do more: two tries tell where to search.
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
    if match is None:
        return None
    return _as_bfloat16 if match[1] == "bfloat16" else _rounding(_FLOAT32 if match[1] == "float32" else _FLOAT16)


def _rounding(form: struct.Struct) -> Callable[[float], float]:
    def as_packed(number: float) -> float:
        try:
            result: float = form.unpack(form.pack(number))[0]
        except OverflowError:
            return math.copysign(math.inf, number)
        return result

    return as_packed


def _as_bfloat16(number: float) -> float:
    """Round to bfloat16, the upper half of a float32, ties to even."""
    bits: int = struct.unpack("<I", struct.pack("<f", _rounding(_FLOAT32)(number)))[0]
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    result: float = struct.unpack("<f", struct.pack("<I", rounded))[0]
    return result


def format_value(number: float) -> str:
    """Return the shortest decimal that reads back as ``number``: ``0.9``, ``5``, ``1e-07``, ``nan``, ``inf``."""
    return repr(float(number)).removesuffix(".0")


def _describe_type(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]} {kind.__name__}"


def _first_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  an error of somebody else's, which may fail in this, too
        text = ""
    return shorten(text.split("\n", 1)[0] or type(error).__name__)
