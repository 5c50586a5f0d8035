"""StdoutSink: the destination ``stdout``, where Katib's StdOut collector reads."""

import contextlib
import math
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import IO

from katib_callbacks.errors import DeliveryError, RejectedError, UnavailableError
from katib_callbacks.metrics import MetricLog, format_timestamp, format_value
from katib_callbacks.sinks import SinkOptions, SinkOutcome
from katib_callbacks.sinks.safe_names import SafeNames

UNSAFE = r"[^A-Za-z0-9_|-]"
r"""Katib's filter takes names of ``[\w|-]`` (pkg/metricscollector/v1beta1/common/const.go); Go's ``\w`` is ASCII."""

CHUNK_BYTES = getattr(select, "PIPE_BUF", 512)
"""A pipe takes this much without blocking if it says that it is writable, and in one piece."""

_WAIT_S = 0.1


class StdoutSink:
    """Prints one line for each row: ``2026-01-31T12:00:00.123456Z loss=0.5``.

    Katib's collector takes a row's time from the RFC 3339 timestamp that its line begins with; without one all rows of
    a trial have the same time, and no latest one. An empty line ends what a progress bar may have left unfinished.
    """

    def __init__(self, options: SinkOptions) -> None:
        self._runtime = options.runtime
        self._names = SafeNames(UNSAFE, "stdout, where Katib's collector reads letters, digits and _|- alone,")
        self._is_closed = threading.Event()

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:  # noqa: ARG002
        """Print the rows and flush them; see :class:`katib_callbacks.MetricSink`.

        A value that is not finite is rejected, the others are printed: the collector would take it for no value, which
        breaks the experiment.
        """
        finite = [log for log in logs if math.isfinite(log.value)]
        names = self._names.of(log.name for log in logs)
        lines = [
            f"{format_timestamp(log.timestamp)} {names[log.name]}={format_value(log.value)}\n".encode()
            for log in finite
        ]
        try:
            written = self._write(lines, self._runtime.monotonic() + deadline_s)
        except _UnwrittenError as error:
            kind = UnavailableError if error.may_pass else DeliveryError
            raise kind(str(error), attempts=1, pending=len(logs) - error.written) from error.__cause__
        if len(finite) < len(logs):
            others = ", ".join(sorted({repr(log.name) for log in logs if not math.isfinite(log.value)}))
            raise RejectedError(
                f"stdout: values of {others} are not finite, and Katib's collector cannot read them",
                attempts=1,
                pending=len(logs) - written,
            )
        return SinkOutcome(delivered=written, attempts=1)

    def close(self) -> None:
        """End a ``send`` that waits."""
        self._is_closed.set()

    def _write(self, lines: Sequence[bytes], end_s: float) -> int:
        stream = _stream()
        if stream is None:
            raise _UnwrittenError("stdout is closed", 0)
        written = 0
        try:
            descriptor = _descriptor(stream)
            if descriptor is None:
                stream.write("\n" + b"".join(lines).decode())
                stream.flush()
                return len(lines)
            self._wait(descriptor, end_s)  # a flush would wait for ever, and keep the stream's lock at the exit
            stream.flush()
            while written < len(lines):
                chunk, rows = b"\n", 0  # again for each chunk, because others print between them
                while written + rows < len(lines) and len(chunk) + len(lines[written + rows]) <= CHUNK_BYTES:
                    chunk, rows = chunk + lines[written + rows], rows + 1
                self._write_chunk(descriptor, chunk, end_s)
                written += rows
        except TimeoutError as error:
            raise _UnwrittenError("stdout: nobody reads what is printed", written, may_pass=True) from error
        except (OSError, ValueError) as error:
            raise _UnwrittenError(f"stdout: {error}", written) from error
        return written

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


class _UnwrittenError(Exception):
    """The reason why lines after the first ``written`` were not printed; ``may_pass`` if they could be later."""

    def __init__(self, why: str, written: int, *, may_pass: bool = False) -> None:
        super().__init__(why)
        self.written = written
        self.may_pass = may_pass


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
