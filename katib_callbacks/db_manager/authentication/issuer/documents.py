"""The two documents of a token issuer (OpenID Connect Discovery 1.0): where its keys are, and the keys."""

import json
import time
from collections.abc import Callable
from os import PathLike
from typing import Any

from katib_callbacks.db_manager.authentication.issuer.key_set import IssuerKey, read_key_set
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.addresses import URL, split_url
from katib_callbacks.net.http import ExchangeError, HTTPRequest
from katib_callbacks.net.masking import MASK
from katib_callbacks.net.tls import client_context, read_token

MAX_DOCUMENT_BYTES = 256 * 1024
"""Kubernetes publishes a key in about 450 bytes, and seldom more than three."""

ACCEPT = "application/jwk-set+json, application/json"
"""Kubernetes serves its keys only as the former, its discovery document only as the latter, and answers 406 to any
other ``Accept`` (pkg/routes/openidmetadata.go)."""

_CA_FILE, _TOKEN_FILE = "the CA file", "the token file"
_OK = 200


class FetchError(Exception):
    """A document could not be had; the message says why and from which host, and nothing secret."""


class IssuerDocuments:
    """The address of an issuer's keys. CA and token files are read again at each fetch.

    The discovery document must name the same issuer, to the letter. ``ca`` is None for the system's authorities,
    ``token_path`` if the issuer answers anybody.
    """

    def __init__(self, issuer: str, ca: str | PathLike[str] | None, token_path: str | PathLike[str] | None) -> None:
        url = _https(issuer)
        if url is None or "?" in issuer:
            raise ConfigurationError(
                f"the issuer must be an https:// URL without user, query and fragment, not {issuer!r}"
            )
        self._issuer = issuer
        self._url = url._replace(target=f"{url.target.rstrip('/')}/.well-known/openid-configuration")
        self._ca = ca
        self._token_path = token_path
        try:
            client_context(_CA_FILE, ca)
            self._token()
        except ConfigurationError as error:
            raise ConfigurationError(f"issuer {issuer}: {error}") from error

    def fetch_keys(self, deadline_s: float, opened: Callable[[HTTPRequest], None]) -> dict[str, IssuerKey]:
        """Return the keys that the issuer publishes now, by their ids; at least one, else FetchError.

        ``deadline_s`` is on the monotonic clock. ``opened`` is told of each request, so that it can be aborted.
        """
        try:
            token = self._token()
            discovery = self._document(self._url, token, deadline_s, opened)
            if discovery.get("issuer") != self._issuer:
                raise FetchError("the discovery document is of another issuer")
            text = discovery.get("jwks_uri")
            keys_url = _https(text) if isinstance(text, str) else None
            if keys_url is None:
                raise FetchError("the discovery document names no https:// URL of keys")
            if self._ca is None and (keys_url.host, keys_url.port) != (self._url.host, self._url.port):
                # Kubernetes' keys are often at another name of the API server, whose certificate the cluster's CA
                # signed as well. But anybody may have one of a public authority, so there the token stays here.
                token = None
            keys = read_key_set(self._document(keys_url, token, deadline_s, opened))
        except (ConfigurationError, ValueError) as error:
            raise FetchError(str(error)) from error
        if not keys:
            raise FetchError("the key set has no key that can be used")
        return keys

    def _token(self) -> str | None:
        return None if self._token_path is None else read_token(_TOKEN_FILE, self._token_path)

    def _document(
        self, url: URL, token: str | None, deadline_s: float, opened: Callable[[HTTPRequest], None]
    ) -> dict[str, Any]:
        """Return the JSON object at ``url``."""
        request = HTTPRequest(url, deadline_s - time.monotonic())
        opened(request)
        headers = {"Accept": ACCEPT} if token is None else {"Accept": ACCEPT, "Authorization": f"Bearer {token}"}
        try:
            answer = request.send(
                "GET", headers=headers, context=client_context(_CA_FILE, self._ca), max_bytes=MAX_DOCUMENT_BYTES + 1
            )
        except ExchangeError as error:
            raise FetchError(f"{url.host}: {error}") from error
        if answer.status != _OK:
            said = answer.said(lambda text: text.replace(token or MASK, MASK))
            raise FetchError(f"{url.host}: answered {answer.status} ({said})")
        if len(answer.body) > MAX_DOCUMENT_BYTES:
            raise FetchError(f"{url.host}: the answer is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise FetchError(f"{url.host}: the answer is not JSON") from error
        if not isinstance(document, dict):
            raise FetchError(f"{url.host}: the answer is not a JSON object")
        return document


def _https(text: str) -> URL | None:
    try:
        url = split_url(text)
    except ValueError:
        return None
    return url if url.is_tls else None
