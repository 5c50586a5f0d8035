"""A status server as Kubeflow Trainer's is (pkg/statusserver/server.go), over HTTPS, that misbehaves when it is told.

It checks what the real one checks: path, token, size of the body, JSON as Go decodes it into the API's types, and the
rules of the custom resource that the API server holds a status to. It writes only so many statuses a second for all
jobs together, and none of a client that has left before its turn.
"""

import contextlib
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from beside import held_port
from certificates import Authority

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/job/status"
MAX_BODY_BYTES = 1 << 16
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
DRIP_S = 0.05


@dataclass
class Seen:
    """One request that arrived whole."""

    status: int
    body: dict
    thread: str = field(default_factory=lambda: threading.current_thread().name)

    @property
    def progress(self):
        return self.body.get("trainerStatus", {}).get("progressPercentage")

    @property
    def remaining_s(self):
        return self.body.get("trainerStatus", {}).get("estimatedRemainingSeconds")

    @property
    def metrics(self):
        return {metric["name"]: metric["value"] for metric in self.body.get("trainerStatus", {}).get("metrics", [])}


class StatusServer:
    """Use it as a context manager.

    Args:
        folder: Gets the files of the CA and of the token.
        is_tls: Whether it speaks HTTPS.
        statuses_per_s: How many it writes; the real one's default is 5. None for any number.
        burst: How many it writes at once; the real one's default is 10.
    """

    def __init__(
        self, folder: Path, *, is_tls: bool = True, statuses_per_s: float | None = None, burst: int = 10
    ) -> None:
        self._interval_s = None if statuses_per_s is None else 1 / statuses_per_s
        self._burst = burst
        self._next_s = 0.0
        self.tokens = {"first-token"}
        self.seen: list[Seen] = []
        self.begun = 0
        self._behaviours: list[str | int] = []
        self._always: str | int | None = None
        self._changed = threading.Condition()
        self._released = threading.Event()
        self.ca_path, self.token_path = folder / "ca.crt", folder / "token"
        self.token_path.write_text("first-token\n", encoding="utf-8")
        self._context = None
        if is_tls:
            authority = Authority()
            pair = authority.issue("localhost")
            self.ca_path.write_bytes(authority.certificate)
            files = {folder / "server.key": pair.key, folder / "server.crt": pair.certificate}
            for path, content in files.items():
                path.write_bytes(content)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._held = contextlib.ExitStack()
        self.port = self._held.enter_context(held_port())
        self._listen()
        self.url = f"{'https' if is_tls else 'http'}://localhost:{self.port}{PATH}"

    @property
    def variables(self) -> dict[str, str]:
        """What Kubeflow Trainer injects."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": self.url,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(self.ca_path),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self.token_path),
        }

    def behave(self, *behaviours: str | int) -> None:
        """Do this to the next requests: hang, drip, drip-headers, reset, redirect, echo the token, or answer an HTTP
        status."""
        with self._changed:
            self._behaviours = list(behaviours)

    def behave_always(self, behaviour: str | int | None) -> None:
        with self._changed:
            self._always = behaviour

    def rotate(self, token: str) -> None:
        """Replace the token as the kubelet does; the old one is valid no more."""
        self.tokens = {token}
        new = self.token_path.with_suffix(".new")
        new.write_text(token, encoding="utf-8")
        new.replace(self.token_path)

    def wait_for(self, condition, timeout_s: float = 60.0) -> None:
        """Wait until ``condition()`` holds; it is looked at after each request."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), [(one.status, one.body) for one in self.seen]

    @property
    def accepted(self) -> list[Seen]:
        return [one for one in self.seen if one.status == 200]

    @property
    def percentages(self) -> list[int]:
        return [one.progress for one in self.accepted]

    def release(self) -> None:
        """Let hanging requests go, unanswered."""
        self._released.set()

    def _listen(self) -> None:
        self._http = _Server(("127.0.0.1", self.port), _Handler)
        self._http.owner, self._http.context = self, self._context
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def stop(self) -> None:
        """Be away: connections are refused."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def restart(self) -> None:
        """Be there again, at the same port."""
        self._listen()
        self._thread.start()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.release()
        self.stop()
        self._held.close()

    # -- for the handler -------------------------------------------------------------------------------------------

    def next_behaviour(self) -> str | int | None:
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
            return self._behaviours.pop(0) if self._behaviours else self._always

    def note(self, seen: Seen) -> None:
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()

    def wait_for_turn(self) -> None:
        """Wait as the real one does for its client of the API server (golang.org/x/time/rate)."""
        if self._interval_s is None:
            return
        with self._changed:
            now_s = time.monotonic()
            self._next_s = max(self._next_s, now_s - self._burst * self._interval_s) + self._interval_s
            wait_s = self._next_s - now_s
        time.sleep(max(0.0, wait_s))

    def hang(self) -> None:
        self._released.wait(120)

    def judge(self, path: str, authorization: str | None, body: bytes) -> tuple[int, str]:
        """Return status and message as the real server would."""
        if path != PATH:
            return 404, "Not found"
        if authorization not in {f"Bearer {token}" for token in self.tokens}:
            return 403, "Forbidden"
        if len(body) > MAX_BODY_BYTES:
            return 413, "Payload too large"
        try:
            status = json.loads(body)["trainerStatus"]
            return _judge(status)
        except (ValueError, KeyError, TypeError):
            return 422, "Invalid payload"


def _judge(status: dict) -> tuple[int, str]:
    """Hold a status to the types of Go's struct and to the rules of the custom resource."""
    when = status.get("lastUpdatedTime")
    if not isinstance(when, str) or not RFC3339.fullmatch(when):
        return 422, "lastUpdatedTime is required"
    datetime.fromisoformat(when.replace("Z", "+00:00"))
    for name, low, high in (("progressPercentage", 0, 100), ("estimatedRemainingSeconds", 0, 2**31 - 1)):
        value = status.get(name, 0)
        if type(value) is not int or not low <= value <= high:
            return 422, f"{name}: {value}"
    metrics = status.get("metrics", [])
    if len(metrics) > 256:
        return 422, f"metrics: too many: {len(metrics)}"
    for metric in metrics:
        for key in ("name", "value"):
            if not isinstance(metric[key], str) or not 1 <= len(metric[key]) <= 64:
                return 422, f"metrics: {key} {metric[key]!r}"
    return 200, ""


def _object(body: bytes) -> dict:
    try:
        return json.loads(body)
    except ValueError:
        return {}


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def get_request(self):
        connection, address = super().get_request()
        connection.settimeout(120)
        if self.context is not None:
            with contextlib.suppress(OSError):
                return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address
        return connection, address

    def handle_error(self, request, client_address):
        """A client that hangs up is what the tests are about."""

    def shutdown_request(self, request):
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        owner = self.server.owner
        behaviour = owner.next_behaviour()
        if behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if behaviour == "hang":
            owner.hang()
            self.close_connection = True
            return
        if behaviour in {"drip", "drip-headers"}:
            self._drip(owner, is_in_headers=behaviour == "drip-headers")
            return
        status, message = owner.judge(self.path, self.headers.get("Authorization"), body)
        if isinstance(behaviour, int):
            status, message = behaviour, f"told to answer {behaviour}"
        elif behaviour == "echo":
            status, message = 403, f"refused: {self.headers.get('Authorization')}"
        elif behaviour == "redirect":
            status = 307
        self.close_connection = True
        if status == 200 and not self._gets_its_turn(owner):
            return
        owner.note(Seen(status, _object(body)))
        answer = body if status == 200 else json.dumps({"kind": "Status", "message": message}).encode()
        self.send_response(status)
        if behaviour == "redirect":
            self.send_header("Location", f"{owner.url}/elsewhere")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def _gets_its_turn(self, owner) -> bool:
        """Wait for the turn; return whether the client has waited as well: it sends nothing else after its request."""
        owner.wait_for_turn()
        return not select.select([self.connection], [], [], 0)[0]

    def _drip(self, owner, *, is_in_headers: bool) -> None:
        """Send a byte now and then, for ever: each read of the client succeeds."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            if not is_in_headers:
                self.wfile.write(b"HTTP/1.1 500 Slow\r\nContent-Length: 4000\r\n\r\n")
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not owner._released.is_set():
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(DRIP_S)

    def log_message(self, *_):
        pass
