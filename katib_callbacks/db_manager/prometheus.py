"""The server's own metrics: counted for Prometheus (extra ``prometheus``) where an address is given."""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from katib_callbacks.db_manager.listening import check_address, split_address
from katib_callbacks.db_manager.service.health import UnforeseenError
from katib_callbacks.errors import ConfigurationError, MissingDependencyError

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a read through the index to what a client waits for at most."""


REFUSAL_REASONS = ("credential", "no credential", "trial", "namespace", "method", "issuer", "limit", "internal")
"""Why the trial listener refuses calls. Each is 0 from the start: Prometheus counts no increase from nothing."""


class ServerMetrics:
    """Sees every call that is answered, and does nothing about it. ``address`` is where Prometheus scrapes."""

    address: str | None = None

    def call(self, method: str, code: str, elapsed_s: float, rows: int) -> None:
        """Take note of a call and of the rows that it brought or took along; 0 unless it is OK."""

    def refusal(self, reason: str) -> None:
        """Take note that the trial listener refused a call, for one of a few words."""

    def close(self) -> None:
        """Stop looking. May be called twice."""


class PrometheusMetrics(ServerMetrics):
    """Counts calls, rows, refusals (calls by status) and latencies, and serves them to Prometheus over HTTP.

    The same address answers ``/healthz`` with 200 while the database can be used, else with 503.
    """

    def __init__(self, listen_address: str, is_serving: Callable[[], bool]) -> None:
        try:
            import prometheus_client as prometheus  # noqa: PLC0415  an extra of its own
        except ImportError as error:
            raise MissingDependencyError(
                'metrics of the server need prometheus-client: pip install "katib-callbacks[db-manager,prometheus]"'
            ) from error
        registry = prometheus.CollectorRegistry()  # not the process's own: two servers may run in one
        self._calls = prometheus.Counter(
            "katib_db_manager_calls",
            "Calls answered, by method and gRPC status.",
            ("method", "code"),
            registry=registry,
        )
        self._rows = prometheus.Counter(
            "katib_db_manager_rows", "Rows of calls answered with OK.", ("method",), registry=registry
        )
        self._refusals = prometheus.Counter(
            "katib_db_manager_refusals", "Calls that the trial listener refused.", ("reason",), registry=registry
        )
        for reason in REFUSAL_REASONS:
            self._refusals.labels(reason)
        self._seconds = prometheus.Histogram(
            "katib_db_manager_call_seconds",
            "Seconds from reading a call to answering it.",
            ("method",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        serving = prometheus.Gauge("katib_db_manager_serving", "Whether the database can be used.", registry=registry)
        serving.set_function(lambda: float(is_serving()))
        check_address(listen_address)
        host, port = split_address(listen_address)
        server_class = type("_Server", (_Server,), {"address_family": socket.getaddrinfo(host, port)[0][0]})
        try:
            self._server: WSGIServer = make_server(
                host, port, _routes(prometheus.make_wsgi_app(registry), is_serving), server_class, _SilentHandler
            )
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {listen_address}: {error.strerror or error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="katib-callbacks-db-manager-metrics", daemon=True
        )
        self._thread.start()
        self.address = f"{listen_address.rpartition(':')[0]}:{self._server.server_port}"

    def call(self, method: str, code: str, elapsed_s: float, rows: int) -> None:
        """Count a call."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(elapsed_s)
        if rows:
            self._rows.labels(method).inc(rows)

    def refusal(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(reason).inc()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape every few seconds is no news."""


def _routes(metrics: Any, is_serving: Callable[[], bool]) -> Callable[[Any, Any], Iterable[bytes]]:
    """Return what answers: 200 or 503 for ``/healthz``, the metrics for any other path."""

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            pages: Iterable[bytes] = metrics(environ, start_response)
            return pages
        try:
            is_ready = is_serving()
        except UnforeseenError:  # which the log says more about
            is_ready = False
        start_response("200 OK" if is_ready else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"serving\n" if is_ready else b"not serving\n"]

    return answer


def open_metrics(listen_address: str | None, is_serving: Callable[[], bool]) -> ServerMetrics:
    """Return what sees the calls: Prometheus' where an address is given."""
    return ServerMetrics() if listen_address is None else PrometheusMetrics(listen_address, is_serving)
