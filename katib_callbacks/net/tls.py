"""TLS contexts, CA files and tokens of a client; what the files hold is read when it is needed, for they change."""

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

    import grpc

MAX_TOKEN_BYTES = 64 * 1024
"""More of a token file is not read. Kubernetes' tokens have about 1 kB, and no server takes headers of this size."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The same for certificates and keys; all authorities of a system have 300 kB."""

_TOKEN = re.compile(rb"[\x21-\x7e]+")


def client_context(source: str, ca: str | os.PathLike[str] | None) -> "ssl.SSLContext":
    """Return a context that trusts these authorities and no others, or the system's; ``source`` names the file."""
    import ssl  # noqa: PLC0415  only with TLS

    if ca is None:
        return ssl.create_default_context()
    text = _read(source, ca).decode("utf-8", errors="replace")
    # Not the default context: from Python 3.13 on that refuses authorities without an Authority Key Identifier, and
    # those of many clusters have none.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"{source}: {ca} holds no certificate in PEM: {_reason(error)}") from error
    return context


def read_token(source: str, path: str | os.PathLike[str]) -> str:
    """Return the token that a file has now: Kubernetes replaces projected tokens while pods run."""
    token = _read(source, path, MAX_TOKEN_BYTES).strip()
    if not _TOKEN.fullmatch(token):  # gRPC and http.client would refuse it with a message that quotes it
        raise ConfigurationError(f"{source}: {path} holds no token: one line of printable ASCII")
    return token.decode()


@dataclass(frozen=True)
class Credentials:
    """Paths of TLS files and of a token; nothing of what they hold."""

    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_path: str | None = None
    is_token_allowed_in_plaintext: bool = False

    @property
    def is_tls(self) -> bool:
        """Whether the channel is encrypted."""
        return any(path is not None for path in (self.tls_ca, self.tls_cert, self.tls_key))  # "" is a mistake, not a no

    def check(self) -> None:
        """Read every file once, so that a wrong one is a ConfigurationError before the training and not after it."""
        if self.is_tls:
            self.ssl_context()
        if self.token_path is not None:
            if not self.is_tls and not self.is_token_allowed_in_plaintext:
                raise ConfigurationError(
                    f"token_path: {self.token_path} would travel without TLS; set tls_ca, or allow_insecure_token"
                )
            self.read_token()

    def read_token(self) -> str:
        """Return the token as :func:`read_token` does."""
        assert self.token_path is not None  # noqa: S101  for type checkers
        return read_token("token_path", self.token_path)

    def channel_credentials(self) -> "grpc.ChannelCredentials":
        """Return credentials for a secure channel of gRPC; the files are read anew."""
        import grpc  # noqa: PLC0415  only when something is sent

        self.ssl_context()  # whose errors tell more than gRPC's
        return grpc.ssl_channel_credentials(
            root_certificates=None if self.tls_ca is None else _read("tls_ca", self.tls_ca),
            certificate_chain=None if self.tls_cert is None else _read("tls_cert", self.tls_cert),
            private_key=None if self.tls_key is None else _read("tls_key", self.tls_key),
        )

    def ssl_context(self) -> "ssl.SSLContext":
        """Return the same as a context of the standard library, which explains what is wrong with a file."""
        import ssl  # noqa: PLC0415  only with TLS

        context = client_context("tls_ca", self.tls_ca)
        if self.tls_cert is None and self.tls_key is None:
            return context
        if self.tls_cert is None or self.tls_key is None:
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ConfigurationError(f"{given} is set without {missing}: a client certificate needs both")
        if b"-----BEGIN CERTIFICATE-----" not in _read("tls_cert", self.tls_cert):
            raise ConfigurationError(f"tls_cert: {self.tls_cert} holds no certificate in PEM")
        key = _read("tls_key", self.tls_key)
        if b"ENCRYPTED" in key:
            raise ConfigurationError(f"tls_key: {self.tls_key} is encrypted; gRPC takes unencrypted keys only")
        if b"PRIVATE KEY-----" not in key:
            raise ConfigurationError(f"tls_key: {self.tls_key} holds no private key in PEM")
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key, password=lambda: b"")
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                f"tls_cert, tls_key: {self.tls_cert} and {self.tls_key} do not fit or are damaged: {_reason(error)}"
            ) from error
        return context


def _read(source: str, path: str | os.PathLike[str], max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return what a file holds; any failure names the file, and never quotes it."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  pathlib takes time to import
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigurationError(f"{source}: {path} cannot be read: {_reason(error)}") from error
    if not data.strip():
        raise ConfigurationError(f"{source}: {path} is empty")
    if len(data) > max_bytes:
        raise ConfigurationError(f"{source}: {path} is larger than {max_bytes:,} bytes")
    return data


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
    return os.fsdecode(reason)
