"""What a spool file looks like: JSON lines, a header, an array for each row, and a footer with a checksum."""

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


@dataclass(frozen=True)
class SpooledRows:
    """What a spool file holds.

    Args:
        trial_name: The trial.
        logs: Its rows, in order of time.
    """

    trial_name: str
    logs: list[MetricLog]


@dataclass(frozen=True)
class Header:
    """The first line: enough to put files in order without reading them.

    Args:
        trial_name: The trial.
        rows: How many follow.
        first: The earliest row's time.
        last: The latest row's time.
    """

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
    """Say whether a file was written to its end."""
    return data.endswith(b"}\n") and data[:-1].rpartition(b"\n")[2].startswith(b'{"crc32"')


def parse(data: bytes) -> SpooledRows:
    """Read and check a file's content.

    Raises:
        SpoolError: It is no such file, of another version, or damaged; the message is to follow the file's name.
        ValueError, TypeError, KeyError, AttributeError: It is damaged.
    """
    body, newline, footer = data[:-1].rpartition(b"\n")
    if not has_footer(data):
        raise SpoolError("is damaged: its end is missing")
    if zlib.crc32(body + newline) != json.loads(footer)["crc32"]:
        raise SpoolError("is damaged: its checksum is wrong")
    first, *lines = body.split(b"\n")
    header = parse_header(first)
    if len(lines) != header.rows:
        raise SpoolError(f"is damaged: it has {len(lines)} of {header.rows} rows")
    logs = []
    for line in lines:
        name, value, timestamp = json.loads(line)
        logs.append(MetricLog(name, float(value), parse_timestamp(timestamp)))
    return SpooledRows(header.trial_name, logs)


def parse_header(line: bytes) -> Header:
    """Read the first line; raises as :func:`parse`."""
    fields = json.loads(line)
    if fields["format"] != FORMAT:
        raise SpoolError("is no spool file")
    if fields["version"] != VERSION:
        raise SpoolError(f"is of version {fields['version']!r}, and this release reads version {VERSION}")
    problem = name_problem(fields["trial_name"])
    if problem:
        raise SpoolError(f"is damaged: its trial name {problem}")
    return Header(
        fields["trial_name"], int(fields["rows"]), parse_timestamp(fields["first"]), parse_timestamp(fields["last"])
    )
