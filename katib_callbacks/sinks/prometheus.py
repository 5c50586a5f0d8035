"""PushgatewaySink: the destinations ``prometheus+http://host:9091`` and ``prometheus+https://...``."""

import base64
import re
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.net.push import Request, Target, post
from katib_callbacks.sinks import SinkOptions, SinkOutcome
from katib_callbacks.sinks.safe_names import SafeNames

JOB = "katib"
"""The label ``job``, which a gateway demands."""

PREFIX = "katib_"
"""Of every gauge: one called ``push_time_seconds`` or ``go_goroutines`` would be refused as one of the gateway's."""

UNSAFE = r"[^A-Za-z0-9_]"
"""Prometheus takes a colon, too, but keeps it for recording rules (prometheus.io/docs/concepts/data_model)."""

BUDGET_S = 10.0
"""For one report, over all tries: a gateway holds what is looked at, not what is counted on."""

_HELP = "The last value of a metric of a Katib trial."
_PLAIN_LABEL = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"


class PushgatewaySink:
    """Pushes the last value of each metric to a Prometheus Pushgateway, as a gauge.

    The group is job, trial, namespace and experiment, the latter two where they are known; a push replaces the gauges
    of the same names in it, and leaves others alone.

    Args:
        options: With a name such as ``prometheus+https://user:password@gateway.example:9091/prefix``.

    Raises:
        ConfigurationError: No such URL.
        MissingDependencyError: prometheus-client is not installed.
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

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Push; see :class:`katib_callbacks.MetricSink`. It takes ``BUDGET_S`` at most, whatever the gateway does.

        Raises:
            RejectedError: The gateway refuses the push.
            UnavailableError: No answer.
            ReporterClosedError: Closed meanwhile.
        """
        last = {log.name: log.value for log in logs}  # they come in order of time
        names = self._names.of(last)
        gauges = {PREFIX + names[name]: value for name, value in last.items()}
        attempts = post(
            self._target,
            push_request(self._target.url, gauges, {**self._labels, "trial": trial_name}),
            rows=len(logs),
            budget_s=min(deadline_s, BUDGET_S),
            closing=self._closing,
            runtime=self._runtime,
        )
        return SinkOutcome(delivered=len(logs), attempts=attempts)

    def close(self) -> None:
        """End a push under way."""
        self._closing.set()


def push_request(gateway: str, gauges: Mapping[str, float], labels: Mapping[str, str]) -> Request:
    """Return what prometheus-client would post to add gauges to a group.

    Args:
        gateway: Its URL.
        gauges: Values by their safe names.
        labels: The group's, without the job.
    """
    import prometheus_client  # noqa: PLC0415  nothing that is not sent needs it

    registry = prometheus_client.CollectorRegistry()
    for name, value in gauges.items():
        prometheus_client.Gauge(name, _HELP, registry=registry).set(value)
    made: list[Request] = []

    def keep(*, url: str, method: str, timeout: float | None, headers: Any, data: bytes) -> Any:
        del method, timeout  # POST, and ours
        return lambda: made.append(Request(url, dict(headers), data))

    prometheus_client.pushadd_to_gateway(gateway, JOB, registry, _grouping_key(labels), handler=keep)
    return made[0]


def _grouping_key(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels as path segments can carry them.

    prometheus-client encodes slashes alone, and later releases spaces, but not ``.`` and ``..``, which servers resolve
    (github.com/prometheus/pushgateway#url).
    """
    return {
        **{label: value for label, value in labels.items() if re.fullmatch(_PLAIN_LABEL, value)},
        **{
            f"{label}@base64": base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
            for label, value in labels.items()
            if not re.fullmatch(_PLAIN_LABEL, value)
        },
    }


def target_of(options: SinkOptions) -> Target:
    """Return the gateway of a URL.

    Raises:
        ConfigurationError: It cannot be one; the message shows neither user nor password.
    """
    problem = None
    try:
        parts = urlsplit(options.name.removeprefix("prometheus+"))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, problem = None, "its host or port cannot be right (a password's @ : / ? # are to be written in percent)"
    if problem is None:
        if not host:
            problem = "it has no host, as in prometheus+http://gateway:9091"
        elif port == 0:
            problem = "no gateway listens on port 0"
        elif parts.query or parts.fragment or not re.fullmatch(r"[!-~]*", options.name):
            problem = "it has a query, a fragment, a blank or a character that is not ASCII"
    if problem:
        raise ConfigurationError(f"the sink {options.label!r}: {problem}")
    return Target(
        options.name,
        options.label,
        parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )
