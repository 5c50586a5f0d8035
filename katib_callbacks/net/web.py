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

_HEADERS = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""
Refusal = Callable[[int, str], tuple[str, str]]
"""What makes the body of an answer, and its media type, of its HTTP status and a sentence."""


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is a free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen at {host}, port {port}: {error}") from error


def url_of(listening: socket.socket, token: str | None = None) -> str:
    """Return the address at which this machine reaches a listening socket, with the token that lets in."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else LOOPBACK
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


def server(app: App, *, certificate: Path | None = None) -> Any:
    """Return a server of uvicorn for an application, over TLS if it has a certificate; nothing is logged but errors."""
    try:
        import uvicorn  # noqa: PLC0415  optional
    except ImportError as error:
        raise MissingDependencyError('this needs starlette and uvicorn: pip install "katib-callbacks[ui]"') from error
    config = uvicorn.Config(
        app,
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
        self._is_loopback = is_loopback(bound)
        self._names = _LOOPBACK_NAMES | {bound, host.lower()}
        if not self._is_loopback:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._cookie = f"katib-callbacks-{port}"  # cookies do not know ports: two pages must not log each other out

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or let the application do it."""
        from starlette.requests import Request  # noqa: PLC0415  optional

        if scope["type"] == "http":
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
