"""Posting one body over HTTP, within a time that is kept whatever the server does."""

import base64
import contextlib
import http.client
import logging
import socket
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from katib_callbacks.errors import DeliveryError, RejectedError, ReporterClosedError, UnavailableError
from katib_callbacks.net.masking import MASK, describe, scrub
from katib_callbacks.settings import Runtime

logger = logging.getLogger(__name__)

MAX_TRIES = 3
TRY_TIMEOUT_S = 5.0
MAX_REDIRECTS = 3
MAX_ANSWER_BYTES = 2_000
"""More of an error's text is not read."""

_RETRY_INTERVALS_S = (0.1, 0.4)
_CHECK_INTERVAL_S = 0.1
_REDIRECTS = frozenset({301, 302, 307, 308})
_TOO_MANY_REQUESTS = 429
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """An HTTP server.

    Args:
        name: The sink's whole name, whose secrets no message shows.
        label: How it is called in messages.
        url: Without user and password.
        user: For basic authentication; None for none.
        password: For basic authentication.
    """

    name: str = field(repr=False)
    label: str
    url: str
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @property
    def authorization(self) -> dict[str, str]:
        """The header of basic authentication, if there is any."""
        if self.user is None:
            return {}
        return {"Authorization": f"Basic {self._credentials}"}

    @property
    def _credentials(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def scrubbed(self, text: str) -> str:
        """Return what the server says without the name's secrets; a proxy may answer with the headers that it got."""
        return scrub(text if self.user is None else text.replace(self._credentials, MASK), self.name)


@dataclass(frozen=True)
class Request:
    """What is posted.

    Args:
        url: The whole URL.
        headers: Without those of authentication.
        body: As bytes.
    """

    url: str
    headers: dict[str, str]
    body: bytes


def post(
    target: Target, request: Request, *, rows: int, budget_s: float, closing: threading.Event, runtime: Runtime
) -> int:
    """Post, with a few tries, and return how many there were. A post may be repeated: it says what is, not what is new.

    Args:
        target: The server.
        request: What is posted.
        rows: How many rows that is, for the errors.
        budget_s: Seconds for all of it.
        closing: Ends it when it is set.
        runtime: Clock.

    Raises:
        RejectedError: The server refuses it, or has a certificate that is not trusted.
        UnavailableError: No answer, or one that says to try later.
        ReporterClosedError: Closed meanwhile.
    """
    end_s = runtime.monotonic() + budget_s
    for attempt, pause_s in enumerate((*_RETRY_INTERVALS_S, None), start=1):
        left_s = end_s - runtime.monotonic()
        try:
            _post_once(target, request, min(left_s, TRY_TIMEOUT_S), closing, runtime)
        except UnavailableError as error:
            if pause_s is None or runtime.monotonic() + pause_s >= end_s:
                raise UnavailableError(str(error), attempts=attempt, pending=rows) from error.__cause__
            logger.debug("Trying again: %s", error)
            if runtime.wait(closing, pause_s):
                raise ReporterClosedError(f"{target.label}: the reporter was closed while it pushed") from None
        except DeliveryError as error:
            raise type(error)(str(error), attempts=attempt, pending=rows) from error.__cause__
        else:
            return attempt
    raise AssertionError  # the last try raises or returns


def _post_once(target: Target, request: Request, timeout_s: float, closing: threading.Event, runtime: Runtime) -> None:
    exchange = _Exchange(target, request)
    end_s = runtime.monotonic() + timeout_s
    while not exchange.is_done.wait(max(0.0, min(_CHECK_INTERVAL_S, end_s - runtime.monotonic()))):
        is_closed = closing.is_set()
        if is_closed or runtime.monotonic() >= end_s:
            exchange.abort()
            if is_closed:
                raise ReporterClosedError(f"{target.label}: the reporter was closed while it pushed")
            raise UnavailableError(f"{target.label}: no answer within {timeout_s:.3g} s")
    if isinstance(exchange.error, ssl.SSLCertVerificationError):
        raise RejectedError(f"{target.label}: {exchange.error.verify_message}") from exchange.error
    if exchange.error is not None:
        raise UnavailableError(f"{target.label}: {describe(exchange.error, target.name)}") from exchange.error
    if http.client.OK <= exchange.status < http.client.MULTIPLE_CHOICES:
        return
    said = f"{target.label} answered {exchange.status} {target.scrubbed(exchange.text)}".rstrip()
    if exchange.status >= http.client.INTERNAL_SERVER_ERROR or exchange.status == _TOO_MANY_REQUESTS:
        raise UnavailableError(said)
    raise RejectedError(said)


class _Exchange:
    """One post, in a daemon thread: neither a resolver nor a server that drips keeps to a socket's timeout."""

    def __init__(self, target: Target, request: Request) -> None:
        self.is_done = threading.Event()
        self.error: Exception | None = None
        self.status = 0
        self.text = ""
        self._target = target
        self._request = request
        self._connection: http.client.HTTPConnection | None = None
        self._is_aborted = False
        threading.Thread(target=self._run, name="katib-callbacks-push", daemon=True).start()

    def abort(self) -> None:
        """Let the thread end."""
        self._is_aborted = True
        connected = getattr(self._connection, "sock", None)
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._follow(self._request.url)
        except Exception as error:  # noqa: BLE001  handed to who waits
            self.error = error
        self.is_done.set()

    def _follow(self, url: str) -> None:
        """Post, and again where a redirect leads: to GET it, as browsers do, would lose what is posted."""
        for _ in range(1 + MAX_REDIRECTS):
            location = self._post(url)
            if location is None:
                return
            following = urljoin(url, location)
            if self._target.user is not None and not _may_know_the_password(url, following):
                self.text = f"to {_origin(following)}, which is not to know the password"
                return
            url = following
        self.text = f"more than {MAX_REDIRECTS} redirects"

    def _post(self, url: str) -> str | None:
        """Post once; return where the answer redirects to."""
        parts = urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(parts.scheme)
        if kind is None or not parts.hostname:
            raise OSError(f"redirected to {parts.scheme}:, which is not HTTP")
        connection = kind(parts.hostname, parts.port, timeout=TRY_TIMEOUT_S)
        self._connection = connection
        try:
            connection.connect()
            if self._is_aborted:
                raise TimeoutError
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, self._request.body, self._request.headers | self._target.authorization)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES).decode(errors="replace")
            self.status, self.text = response.status, " ".join(text.split()) or response.reason
            return response.headers.get("Location") if response.status in _REDIRECTS else None
        finally:
            connection.close()


def _may_know_the_password(url: str, following: str) -> bool:
    """Say whether a redirect stays where the password is known, or only turns TLS on there."""
    here, there = urlsplit(url), urlsplit(following)
    return here.hostname == there.hostname and (
        there.scheme == "https" or (here.scheme == "http" and _origin(url) == _origin(following))
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS.get(parts.scheme)}"
