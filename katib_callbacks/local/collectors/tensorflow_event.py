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
from katib_callbacks.wire.messages import describe, message_class, pool_of

_logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<Q4x")  # of a record: its length, and a checksum, as another follows the data
_CHECKSUM_BYTES = 4

_MAX_RECORD_BYTES = 1 << 26
"""A longer record is no scalar, and as likely a damaged length."""

# TensorFlow's messages Event, Summary, Summary.Value and TensorProto, as ``describe`` takes them.
_MESSAGES = {
    "Event": {"wall_time": "double", "step": "", "file_version": "", "graph_def": "", "summary": "Summary"},
    "Summary": {"value": "[Value]"},
    "Value": {
        "tag": "bytes",
        "simple_value": "float?",
        "obsolete_old_style_histogram": "",
        "image": "",
        "histo": "",
        "audio": "",
        "node_name": "",
        "tensor": "Tensor?",
    },
    "Tensor": {
        "dtype": "int32",
        "tensor_shape": "",
        "version_number": "",
        "tensor_content": "bytes",
        "float_val": "[float]",
        "double_val": "[double]",
    },
}
_POOL = pool_of(describe("katib_callbacks/event.proto", "tensorflow", _MESSAGES))
_Event = message_class("tensorflow.Event", _POOL)

# {DataType: (the type's name, how one number is packed, the field that may hold it instead of the content)}
_TYPES = {1: ("float32", "<f", "float_val"), 2: ("float64", "<d", "double_val")}


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
                event = _Event.FromString(record)
                for value in event.summary.value:
                    number = _tensor(value.tensor) if value.HasField("tensor") else None
                    if number is not None or value.HasField("simple_value"):
                        tag, time = value.tag.decode(errors="replace"), event.wall_time
                        yield tag, datetime.fromtimestamp(time, timezone.utc), number
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


def _tensor(tensor: Any) -> float | None:
    """Return the number of a tensor of one float; None for any other."""
    if tensor.dtype not in _TYPES:
        return None
    dtype, layout, field = _TYPES[tensor.dtype]
    packed, numbers = tensor.tensor_content, getattr(tensor, field)
    if len(packed) == struct.calcsize(layout):
        numbers = struct.unpack(layout, packed)
    return to_number("", _Scalar(numbers[0], dtype)) if len(numbers) == 1 else None


class _Scalar:
    """A number with its precision, as an array of a framework."""

    shape = ()

    def __init__(self, number: float, dtype: str) -> None:
        self._number, self.dtype = number, dtype

    def item(self) -> float:
        return self._number
