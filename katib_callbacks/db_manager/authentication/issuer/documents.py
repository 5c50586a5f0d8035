"""The two documents of a token issuer (OpenID Connect Discovery 1.0): where its keys are, and the keys."""

import socket
import ssl
from collections.abc import Callable
from os import PathLike
from urllib.parse import urlsplit

from katib_callbacks.db_manager.authentication.issuer.key_set import IssuerKey, read_key_set
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.issuer_http import (
    FetchError,
    get_json,
    read_authorization,
    tls_context,
)


class IssuerDocuments:
    """Where an issuer's keys come from.

    Args:
        issuer: The issuer's URL. The discovery document below it must name the same, to the letter.
        ca: A CA file that verifies the issuer; None for the system's authorities. Read again at each fetch.
        token_path: A file whose token the issuer asks for; None if it answers anybody. Read again at each fetch.

    Raises:
        ConfigurationError: The issuer is no ``https://`` URL, or a file cannot be used.
    """

    def __init__(self, issuer: str, ca: str | PathLike[str] | None, token_path: str | PathLike[str] | None) -> None:
        if not _is_https(issuer) or "?" in issuer:
            raise ConfigurationError(
                f"the issuer must be an https:// URL without user, query and fragment, not {issuer!r}"
            )
        self._issuer = issuer
        self._ca = ca
        self._token_path = token_path
        try:
            self._tls()
            self._authorization()
        except FetchError as error:
            raise ConfigurationError(f"issuer {issuer}: {error}") from error

    def fetch_keys(self, deadline_s: float, opened: Callable[[socket.socket], None]) -> dict[str, IssuerKey]:
        """Return the keys that the issuer publishes now, by their ids; at least one.

        Args:
            deadline_s: When to give up, on the monotonic clock.
            opened: Told of each connection.

        Raises:
            FetchError: They cannot be had, or none is of use.
        """
        context, authorization = self._tls(), self._authorization()
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        discovery = get_json(url, context=context, authorization=authorization, deadline_s=deadline_s, opened=opened)
        if discovery.get("issuer") != self._issuer:
            raise FetchError("the discovery document is of another issuer")
        keys_url = discovery.get("jwks_uri")
        if not isinstance(keys_url, str) or not _is_https(keys_url):
            raise FetchError("the discovery document names no https:// URL of keys")
        if self._ca is None and urlsplit(keys_url).netloc != urlsplit(url).netloc:
            # Kubernetes' keys are often at another name of the API server, whose certificate the cluster's CA signed
            # as well. But anybody may have a certificate of a public authority, so there the token stays here.
            authorization = None
        key_set = get_json(keys_url, context=context, authorization=authorization, deadline_s=deadline_s, opened=opened)
        try:
            keys = read_key_set(key_set)
        except ValueError as error:
            raise FetchError(str(error)) from error
        if not keys:
            raise FetchError("the key set has no key that can be used")
        return keys

    def _tls(self) -> ssl.SSLContext:
        return tls_context(self._ca)

    def _authorization(self) -> str | None:
        return None if self._token_path is None else read_authorization(self._token_path)


def _is_https(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False
