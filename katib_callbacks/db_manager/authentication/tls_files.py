"""The trial listener's certificate, key and client authorities, read again when they change.

gRPC asks before each handshake. Certificate and key are replaced one after the other, so connections go on with the
last files that fit together.
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from katib_callbacks.db_manager.authentication.reload_log import ReloadLog
from katib_callbacks.errors import ConfigurationError

MAX_FILE_BYTES = 4 * 1024 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Content:
    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.client_ca
        )


class TLSFiles:
    """A server's files in PEM (the key unencrypted), and the credentials that follow them.

    Without ``client_ca`` clients are asked for no certificate.
    """

    def __init__(
        self,
        certificate: str | PathLike[str],
        key: str | PathLike[str],
        client_ca: str | PathLike[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._certificate, self._key = Path(certificate), Path(key)
        self._client_ca = None if client_ca is None else Path(client_ca)
        self._lock = threading.Lock()
        self._reload_log = ReloadLog(_logger, monotonic)
        self._content: _Content | None = None
        try:
            self._content = first = self._load()
        except _UnfitError as error:
            raise ConfigurationError(str(error)) from error
        fetch: Any = self._fetch  # None is a right answer, which its types do not know
        self._credentials = grpc.dynamic_ssl_server_credentials(
            first.configuration(), fetch, require_client_authentication=client_ca is not None
        )

    def credentials(self) -> grpc.ServerCredentials:
        """Return a port's credentials. With client authorities every client must show a certificate.

        gRPC's Python package cannot ask for one and accept that there is none.
        """
        return self._credentials

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration, None while nothing has changed. Called by gRPC before each handshake."""
        with self._lock:
            try:
                content = self._load()
            except _UnfitError as error:
                self._reload_log.add(str(error))
                return None
            self._reload_log.clear()
            if content == self._content:
                return None
            self._content = content
            _logger.info("new TLS files: %s", self._certificate)
            return content.configuration()

    def _load(self) -> _Content:
        content = self._read()
        if content == self._content:
            return content
        if b"ENCRYPTED" in content.key:
            raise _UnfitError(f"tls key {self._key} is encrypted; gRPC takes unencrypted keys only")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise _UnfitError(
                f"tls certificate {self._certificate} and key {self._key} do not fit or are damaged: {_reason(error)}"
            ) from error
        if content.client_ca is not None:
            try:
                context.load_verify_locations(cadata=content.client_ca.decode("utf-8", errors="replace"))
            except (ssl.SSLError, ValueError) as error:
                raise _UnfitError(
                    f"client ca {self._client_ca} holds no certificate in PEM: {_reason(error)}"
                ) from error
        if self._read() != content:  # what was checked may be another than what was read
            raise _UnfitError(f"tls certificate {self._certificate} or a file beside it is being replaced")
        return content

    def _read(self) -> _Content:
        return _Content(
            _read("tls certificate", self._certificate),
            _read("tls key", self._key),
            None if self._client_ca is None else _read("client ca", self._client_ca),
        )


class _UnfitError(Exception):
    """Why files cannot be used; names them, and quotes nothing of them."""


def _read(what: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        raise _UnfitError(f"{what} {path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
