"""Trials of clients' certificates: found by a template of the names in a certificate.

TLS has proved that the caller has the key and that a client authority vouches for it. TLS looks at the certificate's
time only at the beginning of a connection, so it is checked here at each call.
"""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from katib_callbacks.db_manager.authentication.grant import NAMESPACE, Grant, RefusedError
from katib_callbacks.errors import ConfigurationError, MissingDependencyError

MAX_REMEMBERED = 1_024
"""Certificates, so that one is read once and not for each call."""

_TRIAL = "[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"  # what Kubernetes names objects by, RFC 1123
_NAMESPACE_CHARACTERS = re.compile("[-a-z0-9]*", re.ASCII)


class CertificateNames:
    """Judges certificates by a template of a whole name, a URI or a DNS name. Thread-safe.

    Such as ``spiffe://cluster.local/ns/{namespace}/trial/{trial}`` or ``{trial}.{namespace}.katib-trial``;
    ``{namespace}`` may be left out.
    """

    def __init__(self, template: str, now: Callable[[], datetime] | None = None) -> None:
        try:
            from cryptography import x509  # noqa: PLC0415  an extra of its own
        except ImportError as error:
            raise MissingDependencyError(
                'names of certificates need cryptography: pip install "katib-callbacks[auth]"'
            ) from error
        self._x509: Any = x509
        self._is_uri = "://" in template
        self._pattern = _compile(template)
        self._now = now or (lambda: datetime.now(timezone.utc))
        self._known = lru_cache(MAX_REMEMBERED)(self._read)

    def authenticate(self, pem: bytes) -> Grant:
        """Return what a certificate grants that TLS has accepted; else RefusedError."""
        end, grant = self._known(pem)
        if self._now() >= end:
            raise RefusedError(f"the client's certificate has expired on {end:%Y-%m-%d}")
        if grant is None:
            raise RefusedError("no name in the client's certificate, or more than one, is that of a trial")
        return grant

    def _read(self, pem: bytes) -> tuple[datetime, Grant | None]:
        try:
            certificate = self._x509.load_pem_x509_certificate(pem)
            names = certificate.extensions.get_extension_for_class(self._x509.SubjectAlternativeName).value
        except self._x509.ExtensionNotFound:
            texts = []
        except ValueError as error:  # of TLS's idea of a certificate; what it says cannot be known
            raise RefusedError("the client's certificate cannot be read") from error
        else:
            kind = self._x509.UniformResourceIdentifier if self._is_uri else self._x509.DNSName
            texts = names.get_values_for_type(kind)
        matches = {match.group(): match for text in texts if (match := self._pattern.fullmatch(text))}
        grant = None
        if len(matches) == 1:
            ((text, match),) = matches.items()
            grant = Grant(text, trial_names=frozenset([match["trial"]]), namespace=match.groupdict().get("namespace"))
        return _not_after(certificate), grant


def _not_after(certificate: Any) -> datetime:
    if hasattr(certificate, "not_valid_after_utc"):
        end: datetime = certificate.not_valid_after_utc
        return end
    naive: datetime = certificate.not_valid_after  # cryptography below 42
    return naive.replace(tzinfo=timezone.utc)


def _compile(template: str) -> re.Pattern[str]:
    """Return the pattern of the names that a template means."""
    pieces = re.split(r"\{(trial|namespace)\}", template)
    texts, fields = pieces[::2], pieces[1::2]
    if fields.count("trial") != 1 or fields.count("namespace") > 1 or any(set("{}") & set(text) for text in texts):
        raise ConfigurationError(
            f"certificate name {template!r} must have {{trial}} once and may have {{namespace}} once, such as "
            "{trial}.{namespace}.katib-trial"
        )
    if len(fields) > 1 and _NAMESPACE_CHARACTERS.fullmatch(texts[1]):
        raise ConfigurationError(
            f"certificate name {template!r}: between {{trial}} and {{namespace}} must stand what no namespace has, "
            "such as . or /"
        )
    pattern = re.escape(texts[0])
    for field, text in zip(fields, texts[1:], strict=True):
        pattern += f"(?P<{field}>{_TRIAL if field == 'trial' else NAMESPACE}){re.escape(text)}"
    return re.compile(pattern, re.ASCII)
