"""JsonLinesSink: the destination ``file:///path.jsonl``, one JSON object a row."""

import contextlib
import errno
import json
import logging
import math
import os
import stat
import threading
from collections.abc import Iterator, Sequence

from katib_callbacks.errors import ConfigurationError, DeliveryError, UnavailableError
from katib_callbacks.files import sync_folder
from katib_callbacks.metrics import MetricLog, format_timestamp
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks import SinkOptions, SinkOutcome

try:
    import fcntl
except ImportError:  # Windows, where one process at a time may write
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NONFINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""JSON has no such numbers. These strings are protobuf's JSON mapping, and ``float()`` reads them."""

_START = b'{"trial": '
"""The beginning of each of our lines."""

_MAX_ROW_BYTES = 8_192
"""Longer than any row: two names of 255 characters, each at most two escapes of six bytes."""

_LOCK_INTERVAL_S = 0.01
_FILE_MODE = 0o666


class JsonLinesSink:
    """Appends ``{"trial": "t-1", "name": "loss", "value": 0.5, "time": "2026-01-31T12:00:00.123456Z"}`` for each row.

    Each report is appended whole, under a lock on the file, so that processes may share it, and is on the disk before
    it counts as delivered. What a killed process left of a row is removed by the next one. Missing folders are made.
    """

    def __init__(self, options: SinkOptions) -> None:
        self._file = SharedFile(path_of(options.name.removeprefix("file:"), options), options.runtime, _START)

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Append all rows or none; see :class:`katib_callbacks.MetricSink`. A disk that hangs is waited for."""
        self._file.append([_line(trial_name, log) for log in logs], deadline_s)
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self) -> None:
        """End a ``send`` that waits for the lock."""
        self._file.close()


class SharedFile:
    """A file to which several processes append lines; ``own_start`` is what a line begins with that may be removed."""

    def __init__(self, path: str, runtime: Runtime, own_start: bytes | None = None) -> None:
        self._path = path
        self._runtime = runtime
        self._own_start = own_start
        self._closing = threading.Event()

    def append(self, lines: Sequence[str], deadline_s: float) -> None:
        """Append all lines or none, and bring them to the disk; a DeliveryError says why they are not there."""
        end_s = self._runtime.monotonic() + deadline_s
        try:
            with self._opened() as descriptor:
                is_locked = self._lock(descriptor, end_s)
                try:
                    own_start = self._own_start if is_locked else None
                    _append(descriptor, "".join(lines).encode(), self._path, own_start, is_alone=is_locked)
                finally:
                    # By name: a process that was forked meanwhile has the descriptor, and would hold the lock.
                    if fcntl is not None:
                        with contextlib.suppress(OSError):
                            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except DeliveryError as error:
            error.attempts, error.pending = 1, len(lines)
            raise
        except OSError as error:
            raise DeliveryError(
                f"{self._path} cannot be written: {error.strerror or error}", attempts=1, pending=len(lines)
            ) from error

    def close(self) -> None:
        """End an ``append`` that waits for the lock."""
        self._closing.set()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        folder = os.path.dirname(self._path)  # noqa: PTH120  as bytes that are no UTF-8 allow
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103  as above
        # Without waiting for the other end of a FIFO.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        is_new = not os.path.exists(self._path)  # noqa: PTH110  as above
        descriptor = os.open(self._path, flags, _FILE_MODE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DeliveryError(f"{self._path} is not a regular file")
            if is_new:
                sync_folder(folder)
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, end_s: float) -> bool:
        """Return whether the file is locked; on file systems without locks a write in append mode has to do."""
        while True:
            state = _try_lock(descriptor)
            if state is not None:
                return state
            left_s = end_s - self._runtime.monotonic()
            if left_s <= 0 or self._runtime.wait(self._closing, min(_LOCK_INTERVAL_S, left_s)):
                raise UnavailableError(f"{self._path} is locked by another process")


def _try_lock(descriptor: int) -> bool | None:
    """Return whether the file could be locked; None if somebody else has locked it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        return False
    return True


def _line(trial_name: str, log: MetricLog) -> str:
    value = log.value if math.isfinite(log.value) else NONFINITE[str(log.value)]
    row = {"trial": trial_name, "name": log.name, "value": value, "time": format_timestamp(log.timestamp)}
    return json.dumps(row, allow_nan=False) + "\n"  # in ASCII: no character of a name can end a line


def _append(descriptor: int, content: bytes, path: str, own_start: bytes | None, *, is_alone: bool) -> None:
    """Write all or nothing, and bring it to the disk; cut nothing off where others may write as well."""
    size = os.fstat(descriptor).st_size
    start = size if own_start is None else _after_cut_row(descriptor, size, path, own_start)
    if start != size:
        os.ftruncate(descriptor, start)
    elif size and _read(descriptor, size - 1, 1) != b"\n":
        content = b"\n" + content  # somebody else's last line
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        if is_alone:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, start)
        raise


def _after_cut_row(descriptor: int, size: int, path: str, own_start: bytes) -> int:
    """Return where a row begins whose writer was killed or had no room, and never counted it; else the file's size."""
    tail = _read(descriptor, max(0, size - _MAX_ROW_BYTES), _MAX_ROW_BYTES)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last or not (last.startswith(own_start) or own_start.startswith(last)):
        return size
    try:
        json.loads(last)
    except ValueError:
        logger.warning("The last row of %s was cut off while it was written, and is removed: %r", path, last[:100])
        return size - len(last)
    return size


def _read(descriptor: int, start: int, size: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)  # an append goes to the end nevertheless
    return os.read(descriptor, size)


def path_of(after: str, options: SinkOptions) -> str:
    """Return the path in a URL, of what follows the scheme, as RFC 8089 writes it; what is not ASCII may stand."""
    from urllib.parse import unquote_to_bytes  # noqa: PLC0415  for this alone

    if after.startswith("//"):
        host, slash, path = after[2:].partition("/")
        after = slash + path if host in {"", "localhost"} else ""
    problem = None
    if "?" in after or "#" in after:
        problem = "? and # are to be written %3F and %23"
    path = os.fsdecode(unquote_to_bytes(after))
    if os.name == "nt":
        path = path.removeprefix("/")
    if not os.path.isabs(path):  # noqa: PTH117  a str
        problem = "it needs an absolute path, as in file:///var/log/rows.jsonl"
    elif path.endswith(("/", os.sep)) or os.path.isdir(path):  # noqa: PTH112  as above
        problem = "that is a folder"
    elif "\0" in path:
        problem = "a path has no NUL character"
    if problem:
        raise ConfigurationError(f"the sink {options.label!r}: {problem}")
    return path
