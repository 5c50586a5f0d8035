"""HTTPRequest: one request over HTTP or HTTPS, with one deadline over all of it.

Each step gets what is left of the whole, so that a server that sends a byte a second keeps nobody longer than one that
sends none. A redirect is not followed: credentials would go where it leads. Proxies of the environment are not asked:
they rarely know the names of a cluster.
"""

import contextlib
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPException
from typing import Any, NamedTuple

from katib_callbacks.net.addresses import URL
from katib_callbacks.net.tls import client_context

MAX_BYTES = 4096
"""How much of an answer's body is read where the caller names no other limit: it is the text of an error."""

MAX_SAID_CHARACTERS = 400
"""How much of an error's text a message shows."""

_REDIRECTS = range(300, 400)
_SUCCESSES = range(200, 300)


class ExchangeError(Exception):
    """No whole answer came; the message says why, and nothing secret."""


class UntrustedServerError(ExchangeError):
    """The server's certificate is not accepted, so nothing was sent to it."""


class Answer(NamedTuple):
    """A server's answer; ``body`` is empty where a POST succeeded, of which the status says all."""

    status: int
    phrase: str
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 200s."""
        return self.status in _SUCCESSES

    @property
    def is_redirect(self) -> bool:
        """Whether the status is one of the 300s."""
        return self.status in _REDIRECTS

    def said(self, scrub: Callable[[str], str] = str) -> str:
        """Return an error's text on one line; ``scrub`` takes out secrets: a proxy may answer with our headers."""
        text = self.body.decode("utf-8", errors="replace")
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            text = str(json.loads(text)["message"])
        words = " ".join(scrub(text).split()) or self.phrase
        return "".join(character for character in words if character.isprintable())[:MAX_SAID_CHARACTERS]


class HTTPRequest:
    """One request: :meth:`send` it once; :meth:`abort` it from another thread, even before, and it ``is_aborted``."""

    def __init__(self, url: URL, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._end_s = 0.0
        self._lock = threading.Lock()
        self._stirred = threading.Event()  # ends the wait for the look-up of a name
        self._socket: socket.socket | None = None
        self.is_aborted = False

    def send(
        self,
        method: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        context: ssl.SSLContext | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Answer:
        """Send it and return the answer, blocking; no more than ``max_bytes`` of a body is read.

        Raises:
            UntrustedServerError: The server's certificate is not accepted.
            ExchangeError: There is no whole answer, in time.
        """
        try:
            if self._url.is_tls:
                context = context or client_context("", None)
            with self.connected(context) as used:
                connection = HTTPConnection(self._url.host, self._url.port)
                connection.default_port = HTTPS_PORT if self._url.is_tls else HTTP_PORT  # which Host does not name
                connection.sock = _TimedSocket(used, self._end_s)
                connection.request(method, self._url.target, body, {**headers, "Connection": "close"})
                response = connection.getresponse()
                if method == "POST" and response.status in _SUCCESSES:
                    return Answer(response.status, response.reason, b"")
                content = response.read(max_bytes)
                is_cut = len(content) < max_bytes and bool(response.length)  # a read with a limit does not complain
                answer = Answer(response.status, response.reason, content)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a host that IDNA cannot encode
            raise self._explained(error) from error
        finally:
            self._use(None)
        if is_cut:
            raise ExchangeError("the answer ends in the middle")
        return answer

    def abort(self) -> None:
        """End it."""
        with self._lock:
            self.is_aborted = True
            self._stirred.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's own: SSLSocket.shutdown would take the TLS away from the thread that uses it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def connected(self, context: ssl.SSLContext | None) -> socket.socket:
        """Return a connection to the server, with TLS shaken hands upon; raises OSError. Its time begins now."""
        self._end_s = time.monotonic() + self._timeout_s
        failure: OSError = OSError("the name has no address")
        candidates = self._look_up()
        for index, (family, kind, protocol, _, address) in enumerate(candidates):
            used = socket.socket(family, kind, protocol)
            try:
                if self._url.is_tls and context is not None:
                    # Wrapped before it connects: Python 3.10 loses, open, a socket that was reset before it is wrapped.
                    used = context.wrap_socket(used, server_hostname=self._url.host, do_handshake_on_connect=False)
                self._use(used)
                used.settimeout(_left(self._end_s) / (len(candidates) - index))  # a silent one leaves time for others
                used.connect(address)
            except OSError as error:
                used.close()
                failure = error
            except BaseException:
                used.close()
                raise
            else:
                return self._ready(used)
        raise failure

    def _look_up(self) -> list[Any]:
        """Return the addresses of the host. A resolver keeps to no time, so a daemon thread waits for it."""
        host, port = self._url.host, self._url.port
        with contextlib.suppress(OSError):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found: list[Any] = []
        failures: list[Exception] = []

        def resolve() -> None:
            try:
                found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                failures.append(error)
            self._stirred.set()

        try:
            threading.Thread(target=resolve, name="katib-callbacks-look-up", daemon=True).start()
        except RuntimeError:  # the interpreter is ending
            resolve()
        self._stirred.wait(_left(self._end_s))
        _left(self._end_s)
        if failures:
            raise failures[0]
        return list(found)

    def _ready(self, used: socket.socket) -> socket.socket:
        """Return a connected socket once its peer is known to be the right one."""
        try:
            used.settimeout(_left(self._end_s))  # for the whole handshake
            if isinstance(used, ssl.SSLSocket):
                used.do_handshake()
        except BaseException:
            used.close()
            raise
        return used

    def _use(self, used: socket.socket | None) -> None:
        """Note what :meth:`abort` ends."""
        with self._lock:
            self._socket = used
            if self.is_aborted and used is not None:
                raise ConnectionAbortedError

    def _explained(self, error: Exception) -> ExchangeError:
        if self.is_aborted:
            return ExchangeError("the request was given up")
        if isinstance(error, ssl.SSLCertVerificationError):
            return UntrustedServerError(
                f"the server's certificate is not accepted (CERTIFICATE_VERIFY_FAILED: {error.verify_message})"
            )
        if isinstance(error, TimeoutError):
            return ExchangeError(f"no answer within {self._timeout_s:.3g} s")
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        return ExchangeError(f"{why} ({type(error).__name__})")


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
