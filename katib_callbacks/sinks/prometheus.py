"""PushgatewaySink: the destinations ``prometheus+http://host:9091`` and ``prometheus+https://...``."""

import base64
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import unquote

from katib_callbacks import settings
from katib_callbacks.errors import (
    ConfigurationError,
    DeliveryError,
    MissingDependencyError,
    RejectedError,
    ReporterClosedError,
    UnavailableError,
)
from katib_callbacks.metrics import MetricLog
from katib_callbacks.net.addresses import split_url
from katib_callbacks.net.http import Answer, ExchangeError, HTTPRequest, UntrustedServerError
from katib_callbacks.net.masking import MASK, scrub
from katib_callbacks.sinks import SinkOptions, SinkOutcome
from katib_callbacks.sinks.safe_names import SafeNames

logger = logging.getLogger(__name__)

JOB = "katib"
"""The label ``job``, which a gateway demands."""

PREFIX = "katib_"
"""Of every gauge: one called ``push_time_seconds`` or ``go_goroutines`` would be refused as one of the gateway's."""

UNSAFE = r"[^A-Za-z0-9_]"
"""Prometheus takes a colon, too, but keeps it for recording rules (prometheus.io/docs/concepts/data_model)."""

BUDGET_S = 10.0
"""For one report, over all tries: a gateway holds what is looked at, not what is counted on."""

TRY_TIMEOUT_S = 5.0
"""For one try."""

_PAUSES_S = (0.1, 0.4, None)  # after each try; None after the last
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500

_CONTENT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_HELP = "The last value of a metric of a Katib trial."
_PLAIN_LABEL = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"


class PushgatewaySink:
    """Pushes the last value of each metric to a Prometheus Pushgateway, as a gauge.

    The group is job, trial, namespace and experiment, the latter two where they are known; a push replaces the gauges
    of the same names in it, and leaves others untouched.
    """

    def __init__(self, options: SinkOptions) -> None:
        self._target = target_of(options)
        if find_spec("prometheus_client") is None:  # imported when something is sent
            raise MissingDependencyError(
                f"the sink {options.label!r} needs prometheus-client: pip install 'katib-callbacks[prometheus]'"
            )
        self._runtime = options.runtime
        known = {
            "namespace": settings.namespace(options.runtime),
            "experiment": options.runtime.variable(settings.EXPERIMENT),
        }
        self._labels = {label: value for label, value in known.items() if value is not None}
        self._names = SafeNames(UNSAFE, "Prometheus")
        self._closing = threading.Event()
        self._requests: set[HTTPRequest] = set()  # under way

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Push; see :class:`katib_callbacks.MetricSink`. It takes ``BUDGET_S`` at most, whatever the gateway does."""
        last = {log.name: log.value for log in logs}  # they come in order of time
        names = self._names.of(last)
        gauges = {PREFIX + names[name]: value for name, value in last.items()}
        push = push_request(self._target.url, gauges, {**self._labels, "trial": trial_name})
        end_s = self._runtime.monotonic() + min(deadline_s, BUDGET_S)
        for attempt, pause_s in enumerate(_PAUSES_S, start=1):
            error = self._try(push, end_s - self._runtime.monotonic())
            if error is None:
                return SinkOutcome(delivered=len(logs), attempts=attempt)
            if self._closing.is_set():
                break
            is_over = pause_s is None or self._runtime.monotonic() + pause_s >= end_s
            if is_over or isinstance(error, RejectedError):
                error.attempts, error.pending = attempt, len(logs)
                raise error
            logger.debug("Trying again: %s", error)
            self._runtime.wait(self._closing, pause_s or 0.0)
        raise ReporterClosedError(f"{self._target.label}: the reporter was closed while it pushed")

    def _try(self, push: "Push", left_s: float) -> DeliveryError | None:
        """Push once, and return what went wrong. A push may be repeated: it says what is, not what is new."""
        request = HTTPRequest(split_url(push.url), min(left_s, TRY_TIMEOUT_S))
        self._requests.add(request)
        try:
            if self._closing.is_set():
                request.abort()
            answer = request.send("POST", headers={**_CONTENT, **self._target.authorization}, body=push.body)
        except ExchangeError as error:
            kind = RejectedError if isinstance(error, UntrustedServerError) else UnavailableError
            failure = kind(f"{self._target.label}: {error}")
            failure.__cause__ = error
            return failure
        finally:
            self._requests.discard(request)
        return self._target.refusal(answer)

    def close(self) -> None:
        """End a push under way."""
        self._closing.set()
        for request in list(self._requests):
            request.abort()


class Push(NamedTuple):
    """One post to a gateway."""

    url: str
    body: bytes


@dataclass(frozen=True)
class Target:
    """A gateway; ``url`` has neither user nor password, and no message shows the secrets in ``name``.

    ``credentials`` are those of basic authentication, encoded; None where there are none.
    """

    name: str = field(repr=False)
    label: str
    url: str
    credentials: str | None = field(repr=False)

    @property
    def authorization(self) -> dict[str, str]:
        """The header of basic authentication, if there is any."""
        return {} if self.credentials is None else {"Authorization": f"Basic {self.credentials}"}

    def refusal(self, answer: Answer) -> DeliveryError | None:
        """Return what is wrong with an answer; None if nothing is."""
        if answer.is_success:
            return None
        said = answer.said(lambda text: scrub(text.replace(self.credentials or MASK, MASK), self.name))
        if answer.is_redirect:
            said = f"a redirect, which is not followed: {said}"
        may_pass = answer.status >= _SERVER_ERRORS or answer.status == _TOO_MANY_REQUESTS
        return (UnavailableError if may_pass else RejectedError)(f"{self.label} answered {answer.status} {said}")


def push_request(gateway: str, gauges: Mapping[str, float], labels: Mapping[str, str]) -> Push:
    """Return the post that adds gauges, by their safe names, to a group, as prometheus-client's ``pushadd`` does."""
    import prometheus_client  # noqa: PLC0415  nothing that is not sent needs it

    registry = prometheus_client.CollectorRegistry()
    for name, value in gauges.items():
        prometheus_client.Gauge(name, _HELP, registry=registry).set(value)
    group = "/".join(_segments(label, value) for label, value in sorted(labels.items()))
    return Push(f"{gateway.rstrip('/')}/metrics/job/{JOB}/{group}", prometheus_client.generate_latest(registry))


def _segments(label: str, value: str) -> str:
    """Return a label and its value as path segments can carry them: ``.`` and ``..`` would be resolved by servers."""
    if re.fullmatch(_PLAIN_LABEL, value):
        return f"{label}/{value}"
    return f"{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode().rstrip('=')}"


def target_of(options: SinkOptions) -> Target:
    """Return the gateway of a URL; no error shows its user or password."""
    scheme, slashes, rest = options.name.removeprefix("prometheus+").partition("//")
    credentials, at, _ = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    url = scheme + slashes + rest.removeprefix(credentials + at)
    user, _, password = map(unquote, credentials.partition(":"))
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode() if at else None
    problem = None if re.fullmatch("[!-~]*", credentials) else "it has a blank or a character that is not ASCII"
    try:
        problem = problem or ("it has a query" if "?" in split_url(url).target else None)
    except ValueError as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(f"the sink {options.label!r} is not the URL of a gateway: {problem}")
    return Target(options.name, options.label, url, encoded)
