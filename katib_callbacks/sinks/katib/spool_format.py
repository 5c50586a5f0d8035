"""The format of a spool file: JSON lines, a header, an array for each row, and a footer with a checksum."""

import contextlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from katib_callbacks.errors import SpoolError
from katib_callbacks.metrics import MetricLog, format_timestamp, format_value, name_problem, parse_timestamp

FORMAT = "katib-callbacks spool"
VERSION = 1

_CHUNK_BYTES = 1 << 16


class DamagedError(SpoolError):
    """A file is not what a reporter wrote; nothing will make it readable."""


@dataclass(frozen=True)
class SpooledRows:
    """The content of a spool file, its rows in order of time."""

    trial_name: str
    logs: list[MetricLog]


@dataclass(frozen=True)
class Header:
    """The first line: enough to put files in order without reading them."""

    trial_name: str
    rows: int
    first: datetime
    last: datetime


def chunks(trial_name: str, logs: Sequence[MetricLog]) -> Iterator[bytes]:
    """Yield a file's content in pieces."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "trial_name": trial_name,
        "rows": len(logs),
        "first": format_timestamp(logs[0].timestamp),
        "last": format_timestamp(logs[-1].timestamp),
    }
    chunk = bytearray(_line(header))
    checksum = 0
    for log in logs:
        chunk += _line([log.name, format_value(log.value), format_timestamp(log.timestamp)])
        if len(chunk) >= _CHUNK_BYTES:
            checksum = zlib.crc32(chunk, checksum)
            yield bytes(chunk)
            chunk.clear()
    checksum = zlib.crc32(chunk, checksum)
    yield bytes(chunk) + _line({"crc32": checksum})


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def has_footer(data: bytes) -> bool:
    """Return whether a file was written to its end."""
    return data.endswith(b"}\n") and data[:-1].rpartition(b"\n")[2].startswith(b'{"crc32"')


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Map what a file that was made to do harm may raise; the errors' messages are to follow the file's name."""
    try:
        yield
    except SpoolError:
        raise
    except Exception as error:
        raise DamagedError(f"is damaged: {type(error).__name__}: {error}") from error


@_reading()
def parse(data: bytes) -> SpooledRows:
    """Read and check a file's content; the errors' messages are to follow the file's name."""
    body, newline, footer = data[:-1].rpartition(b"\n")
    if not has_footer(data):
        raise DamagedError("is damaged: its end is missing")
    if zlib.crc32(body + newline) != json.loads(footer)["crc32"]:
        raise DamagedError("is damaged: its checksum is wrong")
    first, *lines = body.split(b"\n")
    header = parse_header(first)
    if len(lines) != header.rows:
        raise DamagedError(f"is damaged: it has {len(lines)} of {header.rows} rows")
    logs = []
    for line in lines:
        name, value, timestamp = json.loads(line)
        logs.append(MetricLog(name, float(value), parse_timestamp(timestamp)))
    if (header.first, header.last) != (logs[0].timestamp, logs[-1].timestamp):
        raise DamagedError("is damaged: its rows are not of the times that its header tells")
    return SpooledRows(header.trial_name, logs)


@_reading()
def parse_header(line: bytes) -> Header:
    """Read the first line; raises as :func:`parse`."""
    fields = json.loads(line)
    if fields["format"] != FORMAT:
        raise DamagedError("is not a spool file")
    if fields["version"] != VERSION:
        raise SpoolError(f"is of version {fields['version']!r}, and this release reads version {VERSION}")
    problem = name_problem(fields["trial_name"])
    if problem:
        raise DamagedError(f"is damaged: its trial name {problem}")
    return Header(
        fields["trial_name"], int(fields["rows"]), parse_timestamp(fields["first"]), parse_timestamp(fields["last"])
    )
