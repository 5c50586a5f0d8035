"""Katib's service for trials: nothing of a request is read, let alone parsed, before its caller is let in."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from katib_callbacks.db_manager.authentication.grant import Grant, IssuerUnavailableError, RefusedError
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.health import Health
from katib_callbacks.db_manager.service.katib_service import only_request, unary
from katib_callbacks.db_manager.service.limits import FailureLimit, Places
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.stopping.judge import experiment_of
from katib_callbacks.db_manager.store.database import POOL_TIMEOUT_S
from katib_callbacks.db_manager.store.errors import ForeignTrialError
from katib_callbacks.db_manager.trials.audit import Audit, plain
from katib_callbacks.db_manager.trials.authenticator import Authenticator
from katib_callbacks.wire import extension, messages, methods

MAX_HEALTH_CHECKS = 16
"""At once: they need no credential, and each keeps a thread."""

SHARE = 0.5
"""Of the listener's calls, those that one namespace (without one: one credential) may have. A call keeps a thread while
its request arrives and while it waits to read: nobody is to have them all."""

MAX_TOKEN_CHARACTERS = 16 * 1024

_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE | re.ASCII)

# What callers are told. Why, and of whom else a trial is, the audit line alone says.
_NOT_ACCEPTED = "the credential is not accepted; the DB manager's audit log says why"
_NO_TRIAL = (
    "the credential names no trial that it could be for; the DB manager's audit log says why"  # known to fates.py
)
_NOT_ALLOWED = "the credential does not allow this call; the DB manager's audit log says why"
_NOT_JUDGED = "the credential could not be judged; try again"  # known to sinks/katib/fates.py
_TOO_MANY = "too many refused calls on this connection; try again later, or on another one"
_TOO_MANY_CALLS = "too many calls of this namespace or credential are being worked on; try again"

_logger = logging.getLogger(__name__)


class _DeniedError(Exception):
    """A call is refused: ``kind`` is counted, ``details`` go to the caller, ``reason`` to the audit line."""

    def __init__(self, code: grpc.StatusCode, kind: str, details: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.kind = kind
        self.details = details
        self.reason = reason


@dataclass
class _Call:
    """A call, and what is known of it so far."""

    path: str
    requests: Iterator[bytes]
    context: grpc.ServicerContext
    grant: Grant | None = None
    trial: str | None = None


class TrialService(grpc.GenericRpcHandler):
    """The handler for a ``grpc.Server``: reports and reads of own trials, health, and nothing else.

    At most ``max_reads`` trials read at once, so that connections to the database are left for Katib.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        servicer: Servicer,
        health: Health,
        audit: Audit,
        metrics: ServerMetrics,
        arrivals: Arrivals,
        *,
        max_reads: int,
    ) -> None:
        self._authenticator = authenticator
        self._servicer = servicer
        self._methods: dict[str, tuple[Any, Callable[..., Any]]] = {  # request's class, and what answers it
            methods.REPORT_OBSERVATION_LOG: (messages.ReportObservationLogRequest, servicer.report),
            methods.GET_OBSERVATION_LOG: (messages.GetObservationLogRequest, self._get),
            methods.JUDGE: (extension.JudgeRequest, self._judge),
        }
        self._health = health
        self._audit = audit
        self._metrics = metrics
        self._arrivals = arrivals
        self.limit = FailureLimit()
        max_calls = authenticator.listener.max_calls
        self._shares = Places(None, _TOO_MANY_CALLS, share=max(1, int(max_calls * SHARE)))
        self._reads = Places(max_reads, "too many trials are reading; try again")
        self._health_checks = Places(MAX_HEALTH_CHECKS, "too many health checks; try again")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return what answers a call of a method."""
        path = handler_call_details.method
        if path == methods.HEALTH_CHECK:
            return unary(self._check_health)
        return unary(lambda requests, context: self._answer(_Call(path, requests, context)))

    def _answer(self, call: _Call) -> Any:
        start_s = time.monotonic()
        try:
            return self._admit_and_serve(call)
        except _DeniedError as denied:
            self._refuse(call, denied, time.monotonic() - start_s)
            return call.context.abort(denied.code, denied.details)  # raises

    def _admit_and_serve(self, call: _Call) -> Any:
        if self.limit.is_over(call.context.peer()):
            raise _DeniedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "limit", _TOO_MANY, "others failed before it")
        call.grant = self._authenticate(call.context)
        if call.path not in self._methods:
            is_known = call.path == methods.DELETE_OBSERVATION_LOG
            code = grpc.StatusCode.PERMISSION_DENIED if is_known else grpc.StatusCode.UNIMPLEMENTED
            raise _DeniedError(code, "method", _NOT_ALLOWED, "trials may not call this method")
        request_class, serve = self._methods[call.path]
        key = call.grant.namespace or f"caller {call.grant.caller}"
        with self._shares.enter(key), self._arrivals.request(key, call.requests, call.context) as received:
            return self._serve(call, serve, only_request(request_class, received, call.context), call.grant)

    def _serve(self, call: _Call, serve: Callable[..., Any], request: Any, grant: Grant) -> Any:
        call.trial = request.trial_name
        problem = self._authenticator.authorize(grant, request.trial_name)
        if problem is not None:
            raise _DeniedError(grpc.StatusCode.PERMISSION_DENIED, "trial", _NOT_ALLOWED, problem)
        try:
            return serve(request, call.context, namespace=grant.namespace)
        except ForeignTrialError as error:
            reason = f"the trial belongs to another namespace than {grant.namespace}"
            raise _DeniedError(grpc.StatusCode.PERMISSION_DENIED, "namespace", _NOT_ALLOWED, reason) from error

    def _get(self, request: Any, context: grpc.ServicerContext, *, namespace: str | None) -> Any:
        with self._reads.enter(timeout_s=POOL_TIMEOUT_S):
            return self._servicer.get(request, context, namespace=namespace)

    def _judge(self, request: Any, context: grpc.ServicerContext, *, namespace: str | None) -> Any:
        """Let a trial ask for itself only, as one of the experiment that its name tells: others' medians are theirs."""
        own = experiment_of(request.trial_name)
        if request.experiment not in {"", own}:
            reason = f"its experiment is {own} by its name, and it asks as a trial of {plain(request.experiment)}"
            raise _DeniedError(grpc.StatusCode.PERMISSION_DENIED, "trial", _NOT_ALLOWED, reason)
        return self._servicer.judge(request, context, namespace=namespace)

    def _authenticate(self, context: grpc.ServicerContext) -> Grant:
        try:
            grant = self._authenticator.authenticate(_token(context), _certificate(context))
        except IssuerUnavailableError as error:
            raise _DeniedError(grpc.StatusCode.UNAVAILABLE, "issuer", _NOT_JUDGED, str(error)) from error
        except RefusedError as error:
            details = _NO_TRIAL if error.is_for_no_trial else _NOT_ACCEPTED
            raise _DeniedError(grpc.StatusCode.UNAUTHENTICATED, "credential", details, str(error)) from error
        except Exception as error:  # gRPC would tell the caller its text
            _logger.exception("a credential could not be judged in a way that was not foreseen")
            reason = f"{type(error).__name__}; the DB manager's log says more"
            raise _DeniedError(grpc.StatusCode.INTERNAL, "internal", reason, reason) from error
        if grant is None:
            details = f"there is no credential; the trial listener wants {self._authenticator.wants}"
            raise _DeniedError(grpc.StatusCode.UNAUTHENTICATED, "no credential", details, "there is no credential")
        return grant

    def _refuse(self, call: _Call, denied: _DeniedError, elapsed_s: float) -> None:
        peer = call.context.peer()
        if denied.kind not in {"limit", "issuer", "internal"}:  # those are not the caller's fault, or not judged
            self.limit.add(peer)
        caller = None if call.grant is None else call.grant.caller
        self._audit.write(call.path, peer, denied.code.name, denied.reason, caller=caller, trial=call.trial)
        self._metrics.refusal(denied.kind)
        is_known = call.path in self._methods or call.path == methods.DELETE_OBSERVATION_LOG
        self._metrics.call(call.path.rpartition("/")[2] if is_known else "other", denied.code.name, elapsed_s, 0)

    def _check_health(self, _requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        """Answer for the server as a whole, whatever service is asked for: its name is not waited for."""
        with self._health_checks.enter():
            return self._health.Check(messages.HealthCheckRequest(), context)


def _token(context: grpc.ServicerContext) -> str | None:
    """Return a caller's bearer token; RefusedError if there are several headers, or it is none."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not values:
        return None
    match = _BEARER.fullmatch(str(values[0])) if len(values) == 1 else None
    if match is None or len(match[1]) > MAX_TOKEN_CHARACTERS:
        raise RefusedError("the authorization header is not one bearer token")
    return match[1]


def _certificate(context: grpc.ServicerContext) -> bytes | None:
    certificates: Any = context.auth_context().get("x509_pem_cert")
    return certificates[0] if certificates else None
