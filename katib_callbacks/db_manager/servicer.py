"""Katib's gRPC service on a store: every request is answered, and every failure has a status that tells."""

import logging
import time
from datetime import datetime, timezone
from typing import Any

import grpc

from katib_callbacks.db_manager.limits import Admission
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.store.errors import BusyError, ForeignTrialError, TooLargeError, UnstorableError
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.db_manager.validation import InvalidRequestError, check_trial_name, filters, report_rows
from katib_callbacks.errors import StoreError
from katib_callbacks.wire import messages
from katib_callbacks.wire.server import DBManagerServicer

_STATUSES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnstorableError, grpc.StatusCode.INVALID_ARGUMENT),
    (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
)
"""What an error becomes for the client: the first line that fits. Whatever fits none is INTERNAL."""

_logger = logging.getLogger(__name__)


class Servicer(DBManagerServicer):
    """The service ``api.v1.beta1.DBManager``.

    Args:
        store: Where the rows lie.
        admission: How many calls may use it at once.
        observer: Sees every call.
    """

    def __init__(self, store: ObservationLogStore, admission: Admission, observer: ServerMetrics) -> None:
        self._store = store
        self._admission = admission
        self._observer = observer

    def ReportObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Store the rows, all or none; what was there already is not stored again."""
        return self.answer("ReportObservationLog", request, context)

    def GetObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Answer a trial's rows by time."""
        return self.answer("GetObservationLog", request, context)

    def DeleteObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Delete a trial's rows."""
        return self.answer("DeleteObservationLog", request, context)

    def _report(self, request: Any, namespace: str | None) -> tuple[Any, int]:
        rows = report_rows(request)
        self._store.insert(check_trial_name(request), rows, namespace=namespace)
        return messages.ReportObservationLogReply(), len(rows)

    def _get(self, request: Any, namespace: str | None) -> tuple[Any, int]:
        trial_name = check_trial_name(request)
        metric_name, start, end = filters(request)
        stored = self._store.select(trial_name, metric_name=metric_name, start=start, end=end, namespace=namespace)
        logs = [
            messages.MetricLog(
                time_stamp=format_as_go(log.timestamp), metric=messages.Metric(name=log.name, value=log.value)
            )
            for log in stored
        ]
        return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=logs)), len(logs)

    def _delete(self, request: Any, _namespace: str | None) -> tuple[Any, int]:
        self._store.delete(check_trial_name(request))
        return messages.DeleteObservationLogReply(), 0

    def answer(self, method: str, request: Any, context: grpc.ServicerContext, *, namespace: str | None = None) -> Any:
        """Do what a call asks and map what goes wrong to a status: nothing that a request does may end the server.

        Args:
            method: Its name, without the service's.
            request: Its message.
            context: Its context.
            namespace: The caller's; None where the trial may be anybody's.

        Returns:
            The reply.

        Raises:
            ForeignTrialError: The trial belongs to another namespace: the listener's to answer.
        """
        handle: Any = {
            "ReportObservationLog": self._report,
            "GetObservationLog": self._get,
            "DeleteObservationLog": self._delete,
        }[method]
        start_s = time.monotonic()
        try:
            with self._admission.enter():
                is_awaited = context.is_active()  # it may have waited for a thread until its client gave up
                reply, rows = handle(request, namespace) if is_awaited else (None, 0)
        except ForeignTrialError:
            raise
        except (InvalidRequestError, StoreError) as error:
            code, details = next(status for kind, status in _STATUSES if isinstance(error, kind)), str(error)
        except Exception as error:
            _logger.exception("a call failed in a way that was not foreseen", extra={"method": method})
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the DB manager's log says more"
        else:
            elapsed_s = time.monotonic() - start_s
            if not is_awaited:
                self._observer.call(method, "CANCELLED", elapsed_s, 0)
                return context.abort(grpc.StatusCode.CANCELLED, "the client has gone")  # gRPC could not serialise None
            self._observer.call(method, "OK", elapsed_s, rows)
            return reply
        elapsed_s = time.monotonic() - start_s
        self._observer.call(method, code.name, elapsed_s, 0)
        level = logging.WARNING if code is grpc.StatusCode.UNAVAILABLE else logging.INFO
        _logger.log(
            level,
            "%s",
            details,
            extra={"method": method, "code": code.name, "elapsed_s": round(elapsed_s, 6), "peer": context.peer()},
        )
        return context.abort(code, details)  # raises


def format_as_go(timestamp: datetime) -> str:
    """Return RFC 3339 in UTC as Go's ``time.RFC3339Nano`` prints it: the fraction without trailing zeros."""
    text = timestamp.astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"
