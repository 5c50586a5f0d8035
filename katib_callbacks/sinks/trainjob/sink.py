"""TrainJobSink: the destination ``trainjob``, the status of the Kubeflow TrainJob that this pod is part of.

The status has the share of the training that is done, the seconds that it will take yet, and the latest value of each
metric; each request replaces it. Only the standard library is used.
"""

import atexit
import os
from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks import settings
from katib_callbacks.errors import ReporterClosedError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.net.deadline import Closing
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime
from katib_callbacks.sinks import SinkOptions, SinkOutcome
from katib_callbacks.sinks.trainjob.board import StatusBoard, board_of
from katib_callbacks.sinks.trainjob.server import StatusServer, resolve_status_server

CLOSE_S = 2.0
"""How long closing waits for the end of a training to be shown, where nobody gives it more time."""

_to_end: "set[TrainJobSink]" = set()
"""Those that have been told of the end of a training, and are not closed."""


class TrainJobSink:
    """Shows progress and metrics of this process in the status of its TrainJob. Thread-safe; pickles.

    Making one opens nothing and reads no file. Without a server nothing is sent.

    Attributes:
        needs_trial: False: a TrainJob that is no Katib trial has a status, too.
        close_s: How long :meth:`close` waits for the end of a training to be shown; a reporter gives its first sink
            its own timeout.
    """

    needs_trial = False

    def __init__(self, server: StatusServer | None, *, runtime: Runtime = DEFAULT_RUNTIME) -> None:
        self._server = server
        self._runtime = runtime
        self._closing = Closing()
        self._pid = os.getpid()
        self._board: StatusBoard | None = None
        self.close_s = CLOSE_S
        self.idle_reason = None if server is not None else f"{settings.TRAINER_SERVER_URL} is not set"

    def progress(self, fraction: float | None, remaining_s: float | None, latest: Mapping[str, float]) -> None:
        """Leave the latest state for the thread that sends it, at most every 5 s; takes microseconds."""
        if self._server is not None and not self._closing.is_set():
            self._its_board(self._server).show(self, fraction, remaining_s, latest)
            if fraction == 1:
                _to_end.add(self)  # in case that nobody closes it before the process ends

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Have the latest value of each metric shown, blocking; see :class:`katib_callbacks.MetricSink`."""
        del trial_name  # the server knows the job by its address and by the token
        if self._server is None:
            return SinkOutcome(delivered=0, attempts=0, skipped=self.idle_reason)
        if self._closing.is_set():
            raise ReporterClosedError("the sink is closed")
        latest = {log.name: log.value for log in logs}
        report = self._its_board(self._server).deliver(self, latest, len(logs), deadline_s, self._closing)
        return SinkOutcome(delivered=len(logs), attempts=report.attempts)

    def close(self) -> None:
        """End what waits with ReporterClosedError; wait ``close_s`` at most for the end of a training to be shown."""
        is_first = not self._closing.is_set()
        self._closing.set()
        _to_end.discard(self)
        if is_first and self._board is not None and self._pid == os.getpid():
            self._board.close(self, self.close_s)

    def _its_board(self, server: StatusServer) -> StatusBoard:
        if self._board is None or self._pid != os.getpid():  # after a fork
            self._pid, self._board = os.getpid(), board_of(server, self._runtime)
        return self._board

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_board": None}


def make_trainjob(options: SinkOptions) -> TrainJobSink:
    """Make the sink from what Kubeflow Trainer has injected."""
    return TrainJobSink(resolve_status_server(options.runtime), runtime=options.runtime)


@atexit.register
def _show_ends() -> None:
    for sink in list(_to_end):
        sink.close()
