"""StatusBoard: one process's view of one job's status, and the one thread that sends it.

A daemon thread sends the latest state, at most every ``INTERVAL_S`` seconds, and what is to arrive for certain, so that
nothing older overtakes it. The state is the process's: a request replaces the whole status, so several callbacks, or an
evaluation after training, must not wipe out what the others showed.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence

from katib_callbacks.errors import DeliveryError, RejectedError, ReporterClosedError, UnavailableError
from katib_callbacks.net.deadline import FIRST_PAUSE_S, LONGEST_PAUSE_S
from katib_callbacks.net.http import HTTPRequest
from katib_callbacks.process_state import in_forked_child, locked
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.trainjob.server import Answer, StatusServer
from katib_callbacks.sinks.trainjob.status import Status

INTERVAL_S = 5.0
"""Between two requests on average, as in Kubeflow's SDK and in transformers' KubeflowCallback."""

INTERVAL_SPREAD = 0.2
"""The share by which it varies: jobs that were started together shall not send together for ever."""

REQUEST_S = 5.0
"""Seconds for one request with news, all in all; the server answers in milliseconds as a rule."""

WAITED_REQUEST_S = 15.0
"""The same for one that a caller waits for. The server writes five statuses a second for the whole cluster: of forty
jobs that end at once the last one's takes eight seconds, and a caller that leaves sooner has shown nothing."""

MAX_LOCAL_FAILURES = 10
"""In a row, as for ``katib``: certificates and tokens that are being replaced are there again by then."""

PATIENCE_S = 1.0
"""How long a report waits for a request that is under way with older news before it cuts it off."""

_ADVICE = {
    401: "it takes no such token",
    403: "the token is not one of a pod of this TrainJob, or has expired",
    404: "there is no such TrainJob, or no such path",
    413: "the status is too large",
    422: "it does not take the status as it is",
}
_MAY_PASS = frozenset({408, 425, 429})
_OK = 200
_SERVER_ERRORS = 500

logger = logging.getLogger(__name__)


class PendingUpdate:
    """A status that a user waits for, until ``end_s`` by the runtime's clock."""

    def __init__(self, user: object, version: int, end_s: float) -> None:
        self.user = user
        self.version = version
        self.end_s = end_s
        self.attempts = 0
        self.answer: Answer | None = None
        self.done = threading.Event()


class StatusBoard:
    """The status of one job; see the module."""

    def __init__(self, server: StatusServer, runtime: Runtime) -> None:
        self._server = server
        self._runtime = runtime
        self._turn = threading.RLock()  # a signal handler may show progress, too
        self._stir = threading.Event()  # ends a pause
        self._status = Status()
        self._version = 0  # of the status
        self._taken = 0  # the version that the last request has
        self._settled = 0  # the version that was shown, or of which somebody was told that it was not
        self._reports: list[PendingUpdate] = []
        self._news: HTTPRequest | None = None  # the request under way, if nobody waits for it
        self._thread: threading.Thread | None = None
        self._users: set[int] = set()
        self._said: set[object] = set()

    # -- for those who train ---------------------------------------------------------------------------------------

    def show(
        self, user: object, fraction: float | None, remaining_s: float | None, latest: Mapping[str, float]
    ) -> None:
        """Leave the latest state; takes microseconds."""
        with self._turn:
            self._users.add(id(user))
            self._status.fraction, self._status.remaining_s = fraction, remaining_s
            self._status.update(latest)
            self._version += 1
            self._ensure_thread()

    def deliver(
        self, user: object, metrics: Mapping[str, float], rows: int, deadline_s: float, closing: threading.Event
    ) -> PendingUpdate:
        """Have these metrics shown, and wait until they are; ``closing`` tells whether :meth:`close` ended the wait."""
        with self._turn:
            self._users.add(id(user))
            self._status.update(metrics)
            self._version += 1
            report, older = self._add(user, deadline_s)
        if self._await(report, older, deadline_s):
            return report
        if closing.is_set():
            raise ReporterClosedError("the reporter was closed while it delivered")
        raise self._failure(report, rows, deadline_s)

    def close(self, user: object, deadline_s: float) -> None:
        """End the waits of this user, and let the end of a training be shown, unless it is known that it cannot be.

        After ``deadline_s`` a WARNING says that it was not shown.
        """
        with self._turn:
            self._users.discard(id(user))
            for report in self._reports:
                if report.user is user:
                    report.done.set()
            self._stir.set()
            if self._status.fraction != 1.0 or self._settled == self._version:
                return
            report, older = self._add(user, deadline_s)
        if not self._await(report, older, deadline_s):
            logger.warning("The training has ended, but %s", self._failure(report, 0, deadline_s))

    def _add(self, user: object, deadline_s: float) -> "tuple[PendingUpdate, HTTPRequest | None]":
        """Return a wait for the status of now, and the request that is under way if its news are older."""
        report = PendingUpdate(user, self._version, self._runtime.monotonic() + deadline_s)
        self._reports.append(report)
        self._ensure_thread()
        self._stir.set()
        return report, self._news if self._taken < self._version else None

    def _await(self, report: PendingUpdate, older: HTTPRequest | None, deadline_s: float) -> bool:
        """Wait until a status was shown, or cannot be; return whether it was."""
        end_s = time.monotonic() + deadline_s
        if self._thread is None:
            self._run()  # as there can be none; if it has ended, all is done
        if older is not None and not report.done.wait(min(PATIENCE_S, deadline_s)) and not report.attempts:
            older.abort()
        if not report.done.wait(max(0.0, end_s - time.monotonic())):
            report.done.set()
        self._settled = max(self._settled, report.version)  # the caller says what became of it
        return report.answer is not None and report.answer.status == _OK

    # -- the thread ------------------------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="katib-callbacks-trainjob", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter is ending: who waits does it
                thread.start()
                self._thread = thread  # it waits for this very turn before it can end

    def _run(self) -> None:
        failures = local_failures = 0
        while True:
            with self._turn:
                self._stir.clear()
                reports = self._waiting()
                if not (self._version > self._taken or reports):
                    self._thread = None
                    return
                request, body = self._next_request(reports)
            answer = self._attempt(request, body)
            with self._turn:
                local_failures = local_failures + 1 if answer.is_local and reports else 0
                is_final = local_failures >= MAX_LOCAL_FAILURES or not _may_pass(answer.status)
                failures = 0 if is_final else failures + 1
                self._finish(reports, answer, is_final=is_final)
                is_waited_for = bool(self._waiting())
                if not (is_waited_for or self._version > self._taken or self._users):
                    self._thread = None
                    return
            longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 10))
            pause_s = self._runtime.uniform(0.0, longest_s)
            if not is_waited_for:
                pause_s = INTERVAL_S * self._runtime.uniform(1 - INTERVAL_SPREAD, 1 + INTERVAL_SPREAD)
            self._runtime.wait(self._stir, pause_s)

    def _next_request(self, reports: Sequence[PendingUpdate]) -> tuple[HTTPRequest, bytes]:
        left_s = [report.end_s - self._runtime.monotonic() for report in reports]
        request = HTTPRequest(self._server.url, min([WAITED_REQUEST_S, *left_s]) if reports else REQUEST_S)
        self._news = None if reports else request
        self._taken = self._version
        for report in reports:
            report.attempts += 1
        return request, self._status.body(self._runtime.now())

    def _finish(self, reports: Sequence[PendingUpdate], answer: Answer, *, is_final: bool) -> None:
        self._news = None
        if answer.status == _OK:
            self._settled = max(self._settled, self._taken)
            reports = [report for report in self._reports if report.version <= self._taken]
        for report in reports:
            report.attempts = max(report.attempts, 1)
            report.answer = answer
            if is_final:
                report.done.set()

    def _waiting(self) -> list[PendingUpdate]:
        """Let go those whose time is up, and return the others."""
        now_s = self._runtime.monotonic()
        for report in self._reports:
            if now_s >= report.end_s:
                report.done.set()
        self._reports = [report for report in self._reports if not report.done.is_set()]
        return list(self._reports)

    def _attempt(self, request: HTTPRequest, body: bytes) -> Answer:
        try:
            answer = self._server.post(request, body)
        except Exception as error:
            logger.exception("Internal error while showing the TrainJob's status; training goes on.")
            answer = Answer(None, f"{type(error).__name__}: {error}")
        if answer.status == _OK:
            if self._said:
                logger.info("The status server takes the TrainJob's status again.")
                self._said.clear()
        elif answer.status not in self._said and not request.is_aborted:
            self._said.add(answer.status)
            logger.warning("The TrainJob's status was not shown: %s", self._explain(answer))
        return answer

    # -- what is said ----------------------------------------------------------------------------------------------

    def _explain(self, answer: Answer) -> str:
        if answer.status is None:
            return f"{self._server.url}: {answer.reason}"
        advice = _ADVICE.get(answer.status)
        if answer.is_redirect:
            advice = "a redirect, which is not followed: the token would go with it"
        details = ": ".join(filter(None, [advice, answer.reason]))
        return f"{self._server.url} answered {answer.status} ({details})"

    def _failure(self, report: PendingUpdate, rows: int, deadline_s: float) -> DeliveryError:
        if report.answer is None:
            why = f"{self._server.url}: no answer within {deadline_s:.4g} s"
        else:
            why = self._explain(report.answer)
        status = None if report.answer is None else report.answer.status
        kind = UnavailableError if _may_pass(status) else RejectedError
        return kind(f"the TrainJob's status was not shown: {why}", attempts=report.attempts, pending=rows)


def _may_pass(status: int | None) -> bool:
    """Return whether the same request may be taken later."""
    return status is None or status >= _SERVER_ERRORS or status in _MAY_PASS


# -- one board for a process -----------------------------------------------------------------------------------------

_boards: "dict[tuple[StatusServer, Runtime], StatusBoard]" = {}


def board_of(server: StatusServer, runtime: Runtime) -> StatusBoard:
    """Return this process's board for a server."""
    with locked():
        board = _boards.get((server, runtime))
        if board is None:
            board = _boards[server, runtime] = StatusBoard(server, runtime)
        return board


@in_forked_child
def _forget_boards() -> None:
    """Forget all: the thread has stayed behind, and the status is the parent's."""
    _boards.clear()
