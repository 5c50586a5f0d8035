"""The door of a web server on this machine: which names it answers to, and the token that it asks for."""

import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from katib_callbacks.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from starlette.requests import Request

LOOPBACK = "127.0.0.1"

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_BYTES = 32
_STOP_S = 1

MAX_CONNECTIONS = 500
"""At a time; the further ones are closed. A process may open 1,024 files by default."""

HEADER_TIMEOUT_S = 10.0
"""How long a connection may ask for nothing, twice at most; those whose request is being answered stay."""

SEND_TIMEOUT_S = 600.0
"""How long a slow reader may take for the rest of an answer, once its connection is to be closed; over TLS Python from
3.11 on gives it 30 s."""

_HEADERS = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""
Refusal = Callable[[int, str], tuple[str, str]]
"""What makes the body of an answer, and its media type, of its HTTP status and a sentence."""


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_loopback(listening: socket.socket) -> bool:
    """Return whether only this machine reaches a listening socket."""
    return ip_address(listening.getsockname()[0]).is_loopback


class BoundedSocket(socket.socket):
    """A listening socket that closes a connection when so many others are open, those in their handshake as well."""

    most = MAX_CONNECTIONS

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection as asyncio asks for it, which goes on where there is none."""
        connection, address = super().accept()
        self._open = [one for one in getattr(self, "_open", ()) if one.fileno() >= 0]
        if len(self._open) >= self.most:
            connection.close()
            raise BlockingIOError
        self._open.append(connection)
        return connection, address


def listening_socket(host: str, port: int) -> BoundedSocket:
    """Return a socket that listens; port 0 is a free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        plain = socket.create_server(address[:2], family=family, backlog=128)
        return BoundedSocket(fileno=plain.detach())
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen at {host}, port {port}: {error}") from error


def url_of(listening: socket.socket, token: str | None = None) -> str:
    """Return the address at which this machine reaches a listening socket, with the token that lets in."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else LOOPBACK
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


def server(
    app: App,
    *,
    certificate: Path | None = None,
    header_timeout_s: float = HEADER_TIMEOUT_S,
    send_timeout_s: float = SEND_TIMEOUT_S,
) -> Any:
    """Return a server of uvicorn for an application, over TLS if it has a certificate; nothing is logged but errors."""
    try:
        import uvicorn  # noqa: PLC0415  optional
        from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415  as above
    except ImportError as error:
        raise MissingDependencyError('this needs starlette and uvicorn: pip install "katib-callbacks[ui]"') from error

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc]  # uvicorn is not there where types are checked
        """Closes a connection that asks for nothing; uvicorn does so only after a first request."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(header_timeout_s, self._look, None)

        def connection_lost(self, error: Exception | None) -> None:
            self.timer.cancel()
            super().connection_lost(error)

        def _look(self, before: Any) -> None:
            is_waiting = self.cycle is None or self.cycle.response_complete
            if not is_waiting or self.cycle is not before:
                self.timer = self.loop.call_later(header_timeout_s, self._look, self.cycle)
            elif before is None:
                self.transport.abort()
            else:
                self.transport.close()  # once all is sent: a complete answer may still lie in the transport
                self.timer = self.loop.call_later(send_timeout_s, self.transport.abort)

    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="asyncio",  # which accepts by the socket's own method
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_STOP_S,
        ssl_certfile=certificate,
    )
    return uvicorn.Server(config)


class Door:
    """Lets a request through to an application if it names this server and shows the token.

    The token comes as ``Authorization: Bearer``, or in the URL ``/?token=``, whose answer sets a cookie and leads to
    ``/``. The name in ``Host`` is checked because a page of another site can have its own name lead here.
    """

    def __init__(
        self, app: App, *, token: str, listening: socket.socket, host: str, refusal: Refusal | None = None
    ) -> None:
        self._app = app
        self._refusal = refusal or _plain_refusal
        self._token = token
        bound, port = listening.getsockname()[:2]
        self._is_loopback = is_loopback(listening)
        self._names = _LOOPBACK_NAMES | {bound, host.lower()}
        if not self._is_loopback:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._cookie = f"katib-callbacks-{port}"  # cookies do not know ports: two pages must not log each other out

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or let the application do it."""
        from starlette.requests import Request  # noqa: PLC0415  optional

        await self._answer_of(Request(scope))(scope, receive, send)

    def _answer_of(self, request: "Request") -> Any:
        """Return the application that answers a request."""
        from starlette.responses import RedirectResponse  # noqa: PLC0415  as above

        if not self._is_named(request.headers.getlist("host")):
            return self._refused(403, "This server does not answer to that name.")
        in_url = request.query_params.getlist("token")
        if request.method == "GET" and request.scope["path"] == "/" and any(map(self._is_token, in_url)):
            answer = RedirectResponse("/", 303, headers=_HEADERS)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            return answer
        if any(map(self._is_token, self._shown(request))):
            return self._app
        return self._refused(401, "Open the URL that the command has printed: it has a token, which lets you in.")

    def _refused(self, status: int, text: str) -> Any:
        from starlette.responses import Response  # noqa: PLC0415  as above

        body, media_type = self._refusal(status, text)
        return Response(body, status, headers=_HEADERS, media_type=media_type)

    def _is_named(self, hosts: list[str]) -> bool:
        """Return whether a request names this server; elsewhere than on loopback by any number, too."""
        if len(hosts) != 1:
            return False
        name = hosts[0].lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return not self._is_loopback

    def _shown(self, request: "Request") -> Iterator[str]:
        """Yield the tokens that a request shows."""
        for value in request.headers.getlist("authorization"):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                yield token.strip()
        yield request.cookies.get(self._cookie, "")

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(errors="replace"), self._token.encode())


def _plain_refusal(_status: int, text: str) -> tuple[str, str]:
    return f"{text}\n", "text/plain"
