"""StatusRequest: one POST over HTTP or HTTPS that is over, one way or another, when its time is.

``http.client``'s timeout is one for each read, so a server that sends a byte a second may hold a caller for ever. Here
every read and write gets what is left of the whole. A redirect is an answer like any other: it is not followed, since
the token would go where it leads. Proxy variables are not looked at: the server is a Service of the cluster.
"""

import contextlib
import io
import json
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    from katib_callbacks.sinks.trainjob.server import StatusServer

MAX_REASON_BYTES = 4096
"""How much of an error's body is read."""

MAX_REASON_CHARACTERS = 200
"""How much of it a message shows."""

OK = 200


class Answer(NamedTuple):
    """What came of a request.

    Args:
        status: The HTTP status; None if there was no answer.
        reason: What the server said, or what went wrong on the way; empty for a 200.
    """

    status: int | None
    reason: str


class StatusRequest:
    """One request; :meth:`run` it once.

    Args:
        server: Where it goes.
        body: What it carries.
        timeout_s: Seconds for all of it, but for the look-up of the host's name, which cannot be bounded.
    """

    def __init__(self, server: "StatusServer", body: bytes, timeout_s: float) -> None:
        self._server = server
        self._body = body
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def run(self) -> Answer:
        """Send it, blocking; raises nothing that the network, the server or the files can cause."""
        end_s = time.monotonic() + self._timeout_s
        try:
            headers = {"Content-Type": "application/json", "Connection": "close", **self._server.authorization()}
            connection = HTTPConnection(self._server.host, self._server.port)
            used = self._connect(end_s)
            with used:
                try:
                    connection.sock = _TimedSocket(used, end_s)
                    connection.request("POST", self._server.target, self._body, headers)
                    response = connection.getresponse()
                    if response.status == OK:
                        return Answer(OK, "")
                    said = response.read(MAX_REASON_BYTES)
                    token = headers.get("Authorization", "").rpartition(" ")[2].encode()
                    if token:  # a proxy may answer with the headers that it got
                        said = said.replace(token, b"***")
                    return Answer(response.status, _reason(said, response.reason))
                finally:
                    self._forget()
        except ConfigurationError as error:
            return Answer(None, str(error))
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a host that IDNA cannot encode
            if isinstance(error, TimeoutError):
                return Answer(None, f"no answer within {self._timeout_s:.3g} s")
            return Answer(None, f"{type(error).__name__}: {error}")

    def abort(self) -> None:
        """End it from another thread."""
        with self._lock:
            self._is_aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's own: SSLSocket.shutdown would take the TLS away from the thread that uses it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _connect(self, end_s: float) -> socket.socket:
        context = self._server.ssl_context()
        plain = socket.create_connection((self._server.host, self._server.port), _left(end_s))
        try:
            plain.settimeout(_left(end_s))  # for the whole handshake
            self._remember(plain)
            used = plain if context is None else context.wrap_socket(plain, server_hostname=self._server.host)
            self._remember(used)
        except BaseException:
            self._forget()
            plain.close()
            raise
        return used

    def _remember(self, used: socket.socket) -> None:
        with self._lock:
            self._socket = used
            if self._is_aborted:
                raise ConnectionAbortedError("the request was given up")

    def _forget(self) -> None:
        with self._lock:
            self._socket = None


class _TimedSocket:
    """As much of a socket as ``http.client`` uses, with one deadline over all of it."""

    def __init__(self, used: socket.socket, end_s: float) -> None:
        self._socket = used
        self._end_s = end_s

    def sendall(self, data: bytes) -> None:
        """Send all of it or raise TimeoutError."""
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(_left(self._end_s))
            rest = rest[self._socket.send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what the response is read from."""
        del mode  # always "rb"
        return io.BufferedReader(_TimedReader(self._socket, self._end_s))

    def close(self) -> None:
        """Do nothing: http.client closes a socket before it reads the body, and counts on a file to keep it open."""


class _TimedReader(io.RawIOBase):
    def __init__(self, used: socket.socket, end_s: float) -> None:
        self._socket = used
        self._end_s = end_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._end_s))
        return self._socket.recv_into(buffer)


def _left(end_s: float) -> float:
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _reason(body: bytes, phrase: str) -> str:
    """Return what an error says: the message of a Kubernetes Status, or whatever text there is."""
    text = body.decode("utf-8", errors="replace")
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        text = str(json.loads(text)["message"])
    words = " ".join(text.split()) or phrase
    return "".join(character for character in words if character.isprintable())[:MAX_REASON_CHARACTERS]
