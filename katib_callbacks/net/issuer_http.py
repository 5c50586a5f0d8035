"""One GET over HTTPS that cannot hang, whatever the other side does: the documents of a token issuer.

The standard library's client with a deadline over all of it but the look-up of the name: a server that sends a byte a
second keeps nobody longer than one that sends none. Certificates are verified, redirects are an error (the documents
say where the keys are, an answer does not), proxies of the environment are not asked, and an answer has a size limit.
"""

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from os import PathLike
from typing import Any
from urllib.parse import urlsplit

MAX_DOCUMENT_BYTES = 256 * 1024
"""Kubernetes publishes a key in about 450 bytes, and seldom more than three."""

MAX_AUTHORIZATION_BYTES = 16 * 1024
"""The most of a token file that is read. Kubernetes' tokens have about 1 kB."""


class FetchError(Exception):
    """A document could not be had; the message says why and from which host, and nothing secret."""


class _Socket(ssl.SSLSocket):
    """Gives each read what is left of the whole exchange; a socket's own timeout begins anew with every byte."""

    deadline_s: float | None = None

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        if self.deadline_s is not None:
            self.settimeout(_left(self.deadline_s))
        return super().recv_into(*arguments, **options)


def tls_context(ca: str | PathLike[str] | None) -> ssl.SSLContext:
    """Return what verifies the issuer: by this CA file alone, or by the system's authorities.

    Raises:
        FetchError: The file cannot be read, or holds no certificate.
    """
    try:
        if ca is None:
            context = ssl.create_default_context()
        else:
            # Not the default one: from Python 3.13 on that refuses authorities without an Authority Key Identifier, and
            # those of many clusters have none.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(ca)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise FetchError(f"the CA file {ca} cannot be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    return context


def read_authorization(path: str | PathLike[str]) -> str:
    """Return what to write into the header ``Authorization`` for the token that a file has at this moment.

    Raises:
        FetchError: It cannot be read, or has no token that a header could carry.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a Path or what is like one
            content = file.read(MAX_AUTHORIZATION_BYTES + 1)
    except OSError as error:
        raise FetchError(f"the token file {path} cannot be read: {_reason(error)}") from error
    token = content.strip()
    if not token or len(content) > MAX_AUTHORIZATION_BYTES or any(not 0x21 <= byte <= 0x7E for byte in token):  # noqa: PLR2004  printable ASCII
        raise FetchError(f"the token file {path} holds no token")
    return f"Bearer {token.decode()}"


def get_json(
    url: str,
    *,
    context: ssl.SSLContext,
    authorization: str | None,
    deadline_s: float,
    opened: Callable[[socket.socket], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the JSON object at ``url``.

    Args:
        url: ``https://``, a host and a path.
        context: From :func:`tls_context`.
        authorization: The header of that name; None for none.
        deadline_s: When to give up, on the monotonic clock.
        opened: Told of the connection, so that :func:`cut` can end the wait.

    Raises:
        FetchError: There is none: no connection, no valid certificate, another status than 200, no JSON object, too
            large, too late.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        body = _get(
            parts.hostname or "", parts.port or 443, parts.path or "/", context, authorization, deadline_s, opened
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{host}: {_reason(error)}") from error
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{host}: the answer is no JSON") from error
    if not isinstance(document, dict):
        raise FetchError(f"{host}: the answer is no JSON object")
    return document


def cut(connection: socket.socket) -> None:
    """End a connection on which another thread waits."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own would go on without encryption


def _get(
    host: str,
    port: int,
    path: str,
    context: ssl.SSLContext,
    authorization: str | None,
    deadline_s: float,
    opened: Callable[[socket.socket], None],
) -> bytes:
    headers = {"Accept": "application/json", "Connection": "close"}
    if authorization is not None:
        headers["Authorization"] = authorization
    with socket.create_connection((host, port), timeout=_left(deadline_s)) as plain:
        # The handshake, and each write, takes the timeout for all that it has to do.
        plain.settimeout(_left(deadline_s))
        with context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False) as secure:
            assert isinstance(secure, _Socket)  # noqa: S101  for type checkers
            opened(secure)
            secure.do_handshake()
            secure.deadline_s = deadline_s
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = secure
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise http.client.HTTPException(f"answered {response.status}")
            body = response.read(MAX_DOCUMENT_BYTES + 1)
            if len(body) > MAX_DOCUMENT_BYTES:
                raise http.client.HTTPException(f"the answer is larger than {MAX_DOCUMENT_BYTES} bytes")
            if response.length:  # of what was announced; a read with a limit does not complain
                raise http.client.HTTPException("the answer ends in the middle")
            return body


def _left(deadline_s: float) -> float:
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise TimeoutError("did not answer in time")
    return left


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
