"""Kubeflow Trainer's status server on one machine: over TLS, with a token for each trial, as strict as the real one.

It runs in threads of the runner. Source: pkg/statusserver/server.go of kubeflow/trainer, and how the real one answers.
"""

import http
import json
import logging
import re
import secrets
import ssl
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from katib_callbacks import settings
from katib_callbacks.local.certificates import make_certificates, server_context
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.metrics import StoredMetricLog, parse_timestamp
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime

TOKEN_S = 3600.0
"""How long a token lives, as in a cluster."""

RENEWAL_SHARE = 0.8
"""The share of its life after which the kubelet replaces a token."""

MAX_BODY_BYTES = 1 << 16
MAX_METRICS = 256
MAX_TEXT = 64
_MAX_INT32 = 2**31 - 1

HOST = "localhost"
"""The one name in the certificate, as the real one has one only."""

MAX_CONNECTIONS = 200
"""At a time, each with a thread; the further ones are closed."""

_CONNECTION_S = 60.0
_MOST_READ_BYTES = 1 << 20
_POLL_S = 0.2
_PATH = re.compile(r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs/([^/]+)/status")

_logger = logging.getLogger(__name__)


@dataclass
class _Admission:
    """A trial that may post: its tokens with the ends of their lives, and where its files are."""

    files: TrialFiles
    token_path: Path
    tokens: dict[str, float]
    renew_at_s: float
    status: dict[str, Any] | None = None


class TrainerStatusServer:
    """Takes the statuses of running trials and keeps each one's last: the files beside the logs have them as well."""

    def __init__(self, namespace: str, *, runtime: Runtime = DEFAULT_RUNTIME) -> None:
        self._namespace = namespace
        self._runtime = runtime
        self._admissions: dict[str, _Admission] = {}
        self._gone: dict[str, str] = {}  # {token: the trial that has ended}
        self._turn = threading.Lock()
        self._authority, pem = make_certificates(HOST)
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner, self._http.context = self, server_context(pem)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(_POLL_S,), name="katib-callbacks-status-server", daemon=True
        )
        self._thread.start()

    def revive(self) -> None:
        """Do nothing: it ends with its runner."""

    def stop(self) -> None:
        """End it, and wait for that."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def admit(self, trial: str, files: TrialFiles) -> dict[str, str]:
        """Let a trial that begins post; returns the variables that Kubeflow Trainer injects."""
        folder = files.folder / "volumes" / "kubeflow-trainer"
        folder.mkdir(parents=True, exist_ok=True)
        ca_path, token_path = folder / "ca.crt", folder / "token"
        ca_path.write_bytes(self._authority)
        admission = _Admission(files, token_path, {}, 0.0)
        self._renew(admission)
        with self._turn:
            self._admissions[trial] = admission
        port = self._http.server_address[1]
        path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{self._namespace}/trainjobs/{trial}/status"
        return {
            settings.TRAINER_SERVER_URL: f"https://{HOST}:{port}{path}",
            settings.TRAINER_SERVER_CA_CERT: str(ca_path),
            settings.TRAINER_SERVER_TOKEN: str(token_path),
        }

    def dismiss(self, trial: str) -> list[StoredMetricLog]:
        """Let a trial that has ended post no longer; returns the metrics of its last status."""
        with self._turn:
            admission = self._admissions.pop(trial)
            self._gone.update(dict.fromkeys(admission.tokens, trial))
        status = admission.status or {}
        metrics = status.get("metrics") or ()
        return [
            StoredMetricLog(one["name"], one["value"], parse_timestamp(status["lastUpdatedTime"])) for one in metrics
        ]

    def renew_tokens(self) -> None:
        """Replace the tokens that are about to expire, as the kubelet does."""
        with self._turn:
            for admission in self._admissions.values():
                if self._runtime.monotonic() >= admission.renew_at_s:
                    with suppress(OSError):  # the trial has removed its own folder
                        self._renew(admission)

    def take(self, path: str, authorization: str | None, body: bytes | None) -> tuple[int, str]:
        """Judge a request and keep its status; returns the answer's HTTP status and message. None: too large a body."""
        match = _PATH.fullmatch(path)
        if match is None or match[1] != self._namespace:
            return http.HTTPStatus.NOT_FOUND, "Not found"
        trial, token = match[2], (authorization or "").removeprefix("Bearer ")
        with self._turn:
            admission = self._admissions.get(trial)
            if admission is None:
                is_gone = self._gone.get(token) == trial
                return (http.HTTPStatus.NOT_FOUND, "Train job not found") if is_gone else _FORBIDDEN
            if authorization == token or self._runtime.monotonic() >= admission.tokens.get(token, 0.0):
                return _FORBIDDEN
            if body is None:
                return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Payload too large"
            status, fault = _read(body)
            if fault is not None:
                return http.HTTPStatus.UNPROCESSABLE_ENTITY, fault
            admission.status = {name: status[name] for name in _FIELDS if status.get(name) is not None}
            when = parse_timestamp(status["lastUpdatedTime"])
            admission.status["lastUpdatedTime"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")  # fractions of a second are cut
            admission.files.write_status(admission.status)
            return http.HTTPStatus.OK, ""

    def _renew(self, admission: _Admission) -> None:
        now_s = self._runtime.monotonic()
        token = secrets.token_urlsafe(32)
        new = admission.token_path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(token, encoding="ascii")
        new.replace(admission.token_path)
        admission.tokens = {old: end_s for old, end_s in admission.tokens.items() if end_s > now_s}
        admission.tokens[token] = now_s + TOKEN_S
        admission.renew_at_s = now_s + TOKEN_S * RENEWAL_SHARE


_FORBIDDEN = (http.HTTPStatus.FORBIDDEN, "Forbidden")
_FIELDS = ("lastUpdatedTime", "progressPercentage", "estimatedRemainingSeconds", "metrics")


def _read(body: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the status in a request's body, and what is wrong with it."""
    try:
        status = json.loads(body)["trainerStatus"]
        return status, _fault(status)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, "Invalid payload"


def _fault(status: Any) -> str | None:
    """Return what Go's decoder and the TrainJob's CRD refuse in a status; None if nothing."""
    when = status.get("lastUpdatedTime")
    if when is None:
        return "status.trainerStatus.lastUpdatedTime in body must be of type string"
    parse_timestamp(when)
    for name, most in (("progressPercentage", 100), ("estimatedRemainingSeconds", _MAX_INT32)):
        value = status.get(name)
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            return f"status.trainerStatus.{name}: must be 0 to {most}, not {value!r}"
    metrics = status.get("metrics") or []
    if len(metrics) > MAX_METRICS:
        return f"status.trainerStatus.metrics: Too many: {len(metrics)}: must have at most {MAX_METRICS} items"
    for number, metric in enumerate(metrics):
        for key in ("name", "value"):
            if not isinstance(metric[key], str) or not 1 <= len(metric[key]) <= MAX_TEXT:
                return f"status.trainerStatus.metrics[{number}].{key}: must have 1 to {MAX_TEXT} characters"
    return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # five, which it is, make the sixth of many trials that end at once wait for a second
    owner: TrainerStatusServer
    context: ssl.SSLContext

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(*arguments)

    def get_request(self) -> tuple[Any, Any]:
        plain, address = super().get_request()
        plain.settimeout(_CONNECTION_S)
        connection = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        if not self._places.acquire(blocking=False):
            connection.close()
            raise BlockingIOError
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._places.release()

    def service_actions(self) -> None:
        self.owner.renew_tokens()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a client that hangs up, or that does not trust us: the runner goes on."""
        del request
        _logger.debug("a status from %s came to nothing: %r", client_address, sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self.close_connection = True
        if "//" in self.requestline:  # as Go's router; `path` has fewer of them
            self.send_response(http.HTTPStatus.TEMPORARY_REDIRECT)
            self.send_header("Location", re.sub("/+", "/", self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            length = max(0, int(self.headers.get("Content-Length") or 0))
        except ValueError:
            length = 0
        content = self.rfile.read(min(length, _MOST_READ_BYTES))  # unread, it would make the answer a reset connection
        body = None if length > MAX_BODY_BYTES else content
        status, message = self.server.owner.take(self.path, self.headers.get("Authorization"), body)
        answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": int(status)}
        content = (body or b"") if status == http.HTTPStatus.OK else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name
        _logger.debug(format, *args)
