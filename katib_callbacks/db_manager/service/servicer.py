"""Katib's gRPC service on a store: every request is answered, and every failure has a status that tells."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc

from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.limits import Places, call_places
from katib_callbacks.db_manager.service.replies import LARGE_REPLY_WAIT_S, LargeReplies, LargeReplyError, ReplyWriter
from katib_callbacks.db_manager.service.validation import InvalidRequestError, check_trial_name, filters, report_logs
from katib_callbacks.db_manager.stopping.judge import Judge, read_question
from katib_callbacks.db_manager.store.errors import BusyError, ForeignTrialError, TooLargeError, UnstorableError
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.errors import StoreError
from katib_callbacks.wire import extension, messages, methods

_STATUSES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnstorableError, grpc.StatusCode.INVALID_ARGUMENT),
    (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
)
"""What an error becomes for the client: the first line that fits. Whatever fits none is INTERNAL."""

MAX_QUESTIONS = 256
"""Questions of early stopping worked on or waiting at once; they take no place of a report."""

_logger = logging.getLogger(__name__)


@dataclass
class _Work:
    """The result of a call."""

    rows: int = 0


class Servicer:
    """The service ``api.v1.beta1.DBManager``.

    ``report`` and ``get`` take the caller's namespace, None where the trial may be anybody's. They raise
    ForeignTrialError for a trial of another namespace, which the trial listener answers.
    """

    def __init__(
        self,
        store: ObservationLogStore,
        places: Places,
        metrics: ServerMetrics,
        large_replies: LargeReplies,
        judge: Judge,
    ) -> None:
        self._store = store
        self._places = places
        self._metrics = metrics
        self._large_replies = large_replies
        self._judge = judge
        self._judge_places = call_places(MAX_QUESTIONS)

    def report(self, request: Any, context: grpc.ServicerContext, *, namespace: str | None = None) -> Any:
        """Store a request's rows, all or none, and return the reply; what was there already is not stored again."""
        with self._answering("ReportObservationLog", context) as work:
            trial_name, logs = check_trial_name(request), report_logs(request)
            del request  # its memory is worth as much as the rows'
            self._store.insert(trial_name, logs, namespace=namespace)
            work.rows = len(logs)
            if _has_metadata(context, methods.FIRST_REPORT):
                with suppress(StoreError):  # the rows are stored, and that is what was asked for
                    if self._store.has_rows_before(trial_name, min(logs)[0]):
                        context.set_trailing_metadata(((methods.EARLIER_ROWS, "1"),))
        return messages.ReportObservationLogReply()

    def get(self, request: Any, context: grpc.ServicerContext, *, namespace: str | None = None) -> bytes:
        """Return the reply's bytes, with a trial's rows by time."""
        with self._answering("GetObservationLog", context) as work:
            trial_name = check_trial_name(request)
            metric_name, start, end = filters(request)

            place = self._large_replies.place(context)

            def read() -> ReplyWriter:
                return self._store.read(
                    trial_name,
                    lambda: ReplyWriter(place.take),
                    metric_name=metric_name,
                    start=start,
                    end=end,
                    namespace=namespace,
                )

            try:
                writer = read()
            except LargeReplyError:  # waits for its place without a connection to the database, and begins anew
                place.take(timeout_s=LARGE_REPLY_WAIT_S)
                writer = read()
            work.rows = writer.rows
            return writer.finish()

    def delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Delete a trial's rows and return the reply."""
        with self._answering("DeleteObservationLog", context):
            is_attempt = _has_metadata(context, methods.CLEARS_ATTEMPT)
            self._store.delete(check_trial_name(request), is_attempt=is_attempt)
        return messages.DeleteObservationLogReply()

    def judge(self, request: Any, context: grpc.ServicerContext, *, namespace: str | None = None) -> Any:
        """Take a trial's epochs, and return whether it is to stop; in places of its own, beside the reports'."""
        with self._answering("Judge", context, self._judge_places) as work:
            question = read_question(request, namespace)
            stop, reason = self._judge.ask(question)
            work.rows = len(question.epochs)
        return extension.JudgeReply(stop=stop, reason=reason)

    @contextmanager
    def _answering(self, method: str, context: grpc.ServicerContext, places: Places | None = None) -> Iterator[_Work]:
        """Map what goes wrong in the block to a status: nothing that a request does may end the server."""
        start_s = time.monotonic()
        work = _Work()
        try:
            with (places or self._places).enter():
                _check_client(context)
                yield work
        except ForeignTrialError:
            raise
        except _GoneError:
            code, details = grpc.StatusCode.CANCELLED, "the client has gone"
        except (InvalidRequestError, StoreError) as error:
            code, details = next(status for kind, status in _STATUSES if isinstance(error, kind)), str(error)
        except Exception as error:
            _logger.exception("a call failed in a way that was not foreseen", extra={"method": method})
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the DB manager's log says more"
        else:
            self._metrics.call(method, "OK", time.monotonic() - start_s, work.rows)
            return
        elapsed_s = time.monotonic() - start_s
        self._metrics.call(method, code.name, elapsed_s, 0)
        if code is not grpc.StatusCode.CANCELLED:
            level = logging.WARNING if code is grpc.StatusCode.UNAVAILABLE else logging.INFO
            fields = {"method": method, "code": code.name, "elapsed_s": round(elapsed_s, 6), "peer": context.peer()}
            _logger.log(level, "%s", details, extra=fields)
        context.abort(code, details)  # raises


class _GoneError(Exception):
    """The client has given up, so the call is not carried out."""


def _has_metadata(context: grpc.ServicerContext, name: str) -> bool:
    return any(key == name for key, _ in context.invocation_metadata() or ())


def _check_client(context: grpc.ServicerContext) -> None:
    """Find out whether anybody waits for the answer: a call may wait for a thread until its client gives up."""
    if not context.is_active():
        raise _GoneError
