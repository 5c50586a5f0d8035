"""StdoutSink: the destination ``stdout``, where Katib's StdOut collector reads."""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import IO

from katib_callbacks.errors import DeliveryError, UnavailableError
from katib_callbacks.sinks import SinkOptions
from katib_callbacks.sinks.collector import Collector
from katib_callbacks.sinks.lines import LineSink

CHUNK_BYTES = getattr(select, "PIPE_BUF", 512)
"""A pipe takes this much without blocking if it says that it is writable, and in one piece."""

_WAIT_S = 0.1


class StdoutSink(LineSink):
    """Prints one line for each row; an empty line first ends what a progress bar may have left unfinished."""

    def __init__(self, options: SinkOptions) -> None:
        super().__init__(options, "stdout")
        self._is_closed = threading.Event()

    def close(self) -> None:
        """End a ``send`` that waits."""
        self._is_closed.set()

    def _write(self, lines: Sequence[str], collector: Collector | None, end_s: float, *, row_count: int) -> None:
        stream = _stream()
        if stream is None:
            raise DeliveryError("stdout is closed", attempts=1, pending=row_count)
        written = 0
        try:
            descriptor = _descriptor(stream)
            if descriptor is None:
                stream.write("\n" + "".join(lines))
                stream.flush()
                return
            self._wait(descriptor, end_s)  # a flush would wait for ever, and keep the stream's lock at the exit
            stream.flush()
            encoded = [line.encode() for line in lines]
            while written < len(lines):
                chunk, rows = b"\n", 0  # again for each chunk, because others print between them
                while written + rows < len(lines) and len(chunk) + len(encoded[written + rows]) <= CHUNK_BYTES:
                    chunk, rows = chunk + encoded[written + rows], rows + 1
                self._write_chunk(descriptor, chunk, end_s)
                written += rows
        except TimeoutError as error:
            why, pending = "stdout: nobody reads what is printed", row_count - written
            raise UnavailableError(why, attempts=1, pending=pending) from error
        except (OSError, ValueError) as error:
            raise DeliveryError(f"stdout: {error}", attempts=1, pending=row_count - written) from error

    def _write_chunk(self, descriptor: int, chunk: bytes, end_s: float) -> None:
        """Write to the descriptor: what a stream holds back because of a broken pipe would fail the process's exit."""
        while chunk:
            self._wait(descriptor, end_s)
            with contextlib.suppress(BlockingIOError):  # others may have filled it meanwhile
                chunk = chunk[os.write(descriptor, chunk) :]

    def _wait(self, descriptor: int, end_s: float) -> None:
        """Wait until somebody reads."""
        while not _is_writable(descriptor):
            if self._is_closed.is_set() or self._runtime.monotonic() > end_s:
                raise TimeoutError


def _stream() -> IO[str] | None:
    """Return what prints: the stdout that somebody put in its place, or the process's own."""
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            return stream
    return None


def _descriptor(stream: IO[str]) -> int | None:
    """Return the descriptor of the process's own stdout; None for one that stands in its place."""
    if stream is not sys.__stdout__:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_writable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(_WAIT_S * 1_000))
