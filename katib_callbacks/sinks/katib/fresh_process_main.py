"""The program of a fresh interpreter that :class:`katib_callbacks.sinks.katib.fresh_process.FreshProcess` starts."""

import contextlib
import logging
import os
import signal
import threading
from multiprocessing.connection import Connection as PipeEnd
from typing import TYPE_CHECKING, NoReturn

from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.process_state import count_from, trial_state
from katib_callbacks.sinks.katib.sink import DBManagerSink

if TYPE_CHECKING:
    from katib_callbacks.sinks.katib.fresh_process import Job

PARENT_CHECK_S = 0.2

_LOGGER = "katib_callbacks"


def serve(end: PipeEnd) -> NoReturn:
    """Do one job, in the fresh interpreter, and end it; ``end`` leads to the process that has the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the other process that is interrupted, and ends this one
    end.send(("ready", None))
    job: Job = end.recv()
    count_from(job.started_at)
    trial_state(job.trial_name).has_begun = not job.is_first
    threading.Thread(target=_end_with, args=(end, os.getppid()), daemon=True).start()
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(job.log_level)
    logger.addHandler(_ForwardingHandler(end))
    logger.propagate = False
    sink = DBManagerSink(job.endpoint, verify=job.verify, previous_attempt=job.previous_attempt)
    try:
        outcome = sink.send(
            job.trial_name,
            job.logs,
            deadline_s=job.deadline_s,
            on_progress=lambda rows: end.send(("delivered", rows)),
        )
        end.send(("outcome", outcome))
    except KatibCallbacksError as error:
        end.send(("error", error))
    os._exit(0)  # gRPC's threads are not waited for


class _ForwardingHandler(logging.Handler):
    """Hands log records to the process that has handlers for them."""

    def __init__(self, end: PipeEnd) -> None:
        super().__init__()
        self._end = end

    def emit(self, record: logging.LogRecord) -> None:
        self._end.send(("log", (record.name, record.levelno, record.getMessage())))


def _end_with(end: PipeEnd, parent_pid: int) -> None:
    """End this interpreter with the process that started it: a replay of its rows must not meet another sender."""
    with contextlib.suppress(OSError):
        # Its end of the pipe may have been inherited by a child of its own, which lives on.
        while not end.poll(PARENT_CHECK_S) and os.getppid() == parent_pid:
            pass
    os._exit(1)
