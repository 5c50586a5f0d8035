"""Katib's TensorFlowEvent collector: metrics found in a folder's event files, without TensorFlow or TensorBoard.

As in Katib (tfevent-metricscollector/tfevent_loader.py) only tensors are read, as ``tf.summary.scalar`` writes them;
torch's SummaryWriter writes plain numbers unless ``new_style=True``.
"""

import logging
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from katib_callbacks.metrics import StoredMetricLog, format_value, to_number

_logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<Q4x")  # of a record: its length, and a checksum, as another follows the data
_CHECKSUM_BYTES = 4

_MAX_RECORD_BYTES = 1 << 26
"""A longer record is no scalar, and as likely a damaged length."""

# Numbers of fields in TensorFlow's messages Event, Summary, Summary.Value and TensorProto.
_WALL_TIME, _SUMMARY = 1, 5
_VALUE = 1
_TAG, _SIMPLE_VALUE, _TENSOR = 1, 2, 8
_DTYPE, _CONTENT = 1, 4

# {DataType: (the type's name, how one number is packed, the field that may hold it instead of the content)}
_TYPES = {1: ("float32", "<f", 5), 2: ("float64", "<d", 6)}

_FIXED_64, _BYTES, _FIXED_32 = 1, 2, 5  # wire types; 0 is a varint


def collect_events(folder: Path, metrics: Sequence[str]) -> list[StoredMetricLog]:
    """Return the rows of a trial's event files, in the folder and below it, by time.

    A tag need only begin with a name; ``test/accuracy`` is ``accuracy`` in files of folders whose path ends in
    ``test``.
    """
    rows: list[StoredMetricLog] = []
    plain: set[str] = set()
    for path in sorted(path for path in folder.rglob("*tfevents*") if path.is_file()):  # a FIFO would be waited for
        wanted = {name: name.rpartition("/") for name in metrics}
        named = [(name, last) for name, (parent, _, last) in wanted.items() if str(path.parent).endswith(parent)]
        for tag, timestamp, value in _scalars(path):
            for name, last in named:
                if tag.startswith(last) and value is None:
                    plain.add(name)
                elif tag.startswith(last) and value is not None:
                    rows.append(StoredMetricLog(name, format_value(value), timestamp))
    for name in sorted(plain - {row.name for row in rows}):
        _logger.warning(
            "%s stands in the event files as a plain number, which Katib's collector does not read; write it by "
            "tf.summary.scalar, or torch's add_scalar(..., new_style=True)",
            name,
        )
    return sorted(rows, key=lambda row: row.timestamp)


def _scalars(path: Path) -> Iterator[tuple[str, datetime, float | None]]:
    """Yield tag, time and number of each scalar; no number for one that is no tensor."""
    try:
        with path.open("rb") as file:
            for record in _records(file):
                time_s, summaries = 0.0, []
                for number, value in _fields(record):
                    if number == _WALL_TIME:
                        time_s = struct.unpack("<d", value)[0]
                    elif number == _SUMMARY:
                        summaries.append(value)
                for summary in summaries:
                    for number, value in _fields(summary):
                        if number == _VALUE and (scalar := _scalar(value)) is not None:
                            yield scalar[0], datetime.fromtimestamp(time_s, timezone.utc), scalar[1]
    except Exception as error:  # noqa: BLE001  a file may hold anything, and must not end the other trials with its own
        _logger.warning("%s is damaged, and read no further: %s", path, error)


def _records(file: Any) -> Iterator[bytes]:
    """Yield the records of a file; the last one may be cut off, by a writer that was killed."""
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        (length,) = _HEADER.unpack(header)
        if length > _MAX_RECORD_BYTES:
            raise ValueError(f"a record of {length} bytes")
        record = file.read(length)
        if len(record) < length or len(file.read(_CHECKSUM_BYTES)) < _CHECKSUM_BYTES:
            return
        yield record


def _scalar(summary: bytes) -> tuple[str, float | None] | None:
    tag, number, is_scalar = "", None, False
    for field, value in _fields(summary):
        if field == _TAG:
            tag = value.decode(errors="replace")
        elif field == _SIMPLE_VALUE:
            is_scalar = True
        elif field == _TENSOR:
            number = _tensor(value)
            is_scalar |= number is not None
    return (tag, number) if is_scalar else None


def _tensor(message: bytes) -> float | None:
    """Return the number of a tensor of one float; None for any other."""
    fields = dict(_fields(message))
    if fields.get(_DTYPE) not in _TYPES:
        return None
    dtype, layout, field = _TYPES[fields[_DTYPE]]
    packed = fields.get(_CONTENT) or fields.get(field)
    if not isinstance(packed, bytes) or len(packed) != struct.calcsize(layout):
        return None
    return to_number("", _Scalar(struct.unpack(layout, packed)[0], dtype))


class _Scalar:
    """A number with its precision, as an array of a framework."""

    shape = ()

    def __init__(self, number: float, dtype: str) -> None:
        self._number, self.dtype = number, dtype

    def item(self) -> float:
        return self._number


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of a protobuf message's fields: an int of a varint, the bytes of any other."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value: Any
            value, at = _varint(message, at)
        else:
            if kind == _BYTES:
                length, at = _varint(message, at)
            elif kind in {_FIXED_64, _FIXED_32}:
                length = 8 if kind == _FIXED_64 else 4
            else:
                raise ValueError(f"a field of the unknown kind {kind}")
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise ValueError("a field is cut off")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number is cut off")
        number |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:  # noqa: PLR2004  the last byte of a varint
            return number, at
    raise ValueError("a number is too long")
