"""FreshProcess: a delivery in a fresh interpreter, for a process that was forked after gRPC had been loaded.

Such a process must not use the core that it inherited (see :mod:`katib_callbacks.wire.forks`). A fresh interpreter
inherits nothing, and ends with the process that started it, however that ends. What runs in it is in
:mod:`katib_callbacks.sinks.katib.fresh_process_main`.
"""

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing import Pipe

from katib_callbacks.errors import KatibCallbacksError, ReporterClosedError, UnavailableError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.net.deadline import Deadline
from katib_callbacks.settings import PreviousAttempt, Verify
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.katib.endpoint import Endpoint

GRACE_S = 2.0
"""How long after the deadline the answer may come, which says more than that it did not."""

_PROGRAM = (
    "import sys; from multiprocessing.connection import Connection; end = Connection(int(sys.argv[1])); "
    "sys.path[:] = end.recv(); from katib_callbacks.sinks.katib.fresh_process_main import serve; serve(end)"
)


@dataclass(frozen=True)
class Job:
    """The work for a fresh interpreter; it pickles, and holds no secret.

    Args:
        log_level: Below it nothing is logged.
        is_first: Whether it is the first delivery to the trial of the process for which it works.
        started_at: When that process started.
    """

    endpoint: Endpoint
    verify: Verify
    previous_attempt: PreviousAttempt
    trial_name: str
    logs: Sequence[MetricLog]
    deadline_s: float
    log_level: int
    is_first: bool
    started_at: datetime


class FreshProcess:
    """A fresh interpreter, for one delivery; the job's ``deadline_s`` is replaced by what is left once it is up."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._delivered = 0
        self._is_closed = False
        self._end, theirs = Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  this very Python, with a program of ours
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except (OSError, ValueError) as error:
                self._end.close()
                raise self._failure(f"no fresh interpreter can be started: {sys.executable!r}: {error}") from error

    def deliver(self, deadline: Deadline) -> SinkOutcome:
        """Deliver, blocking; the errors are those of ``DBManagerSink.send``."""
        reason = f"the deadline of {deadline.total_s:.4g} s has passed"
        try:
            self._end.send(sys.path)
            while self._end.poll(deadline.remaining_s + GRACE_S):
                kind, content = self._end.recv()
                if kind == "ready":
                    self._end.send(replace(self._job, deadline_s=deadline.remaining_s))
                elif kind == "log":
                    name, level, message = content
                    logging.getLogger(name).log(level, "%s", message)
                elif kind == "delivered":
                    self._delivered = content
                elif kind == "outcome":
                    outcome: SinkOutcome = content
                    return outcome
                else:
                    raise content
        except (EOFError, OSError):
            self._process.kill()
            reason = f"the fresh interpreter that delivers them ended with status {self._process.wait()}"
        raise self._failure(reason)

    def close(self) -> None:
        """End it, whatever it does. May be called by any thread, and twice."""
        self._is_closed = True
        self._process.kill()

    def release(self) -> None:
        """End it and forget it; called last, by the thread that delivers."""
        self._process.kill()
        self._process.wait()
        self._end.close()

    def _failure(self, reason: str) -> KatibCallbacksError:
        rows = len(self._job.logs)
        text = (
            f"{rows - self._delivered:,} of {rows:,} rows of trial {self._job.trial_name!r} may not have reached the "
            f"DB manager at {self._job.endpoint.address}: "
        )
        if self._is_closed:
            return ReporterClosedError(f"{text}the reporter was closed while it delivered")
        return UnavailableError(text + reason, pending=rows - self._delivered)
