"""Credentials: the files that make a channel secure, by their paths; what they hold is read when a channel opens."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import grpc

_TOKEN = re.compile(rb"[\x21-\x7e]+")


@dataclass(frozen=True)
class Credentials:
    """Paths of TLS files and of a token; nothing of what they hold.

    Args:
        tls_ca: PEM file with the authorities that the server's certificate is checked against.
        tls_cert: PEM file with this client's certificate chain.
        tls_key: PEM file with its private key, unencrypted.
        token_path: File with a bearer token.
        is_token_allowed_in_plaintext: Whether the token may travel without TLS.
    """

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
        """Read every file once, so that a wrong one is found before the training and not after it.

        Raises:
            ConfigurationError: A file that is missing, unreadable or no such file; or a token without TLS.
        """
        if self.is_tls:
            self.ssl_context()
        if self.token_path is not None:
            if not self.is_tls and not self.is_token_allowed_in_plaintext:
                raise ConfigurationError(
                    f"token_path: {self.token_path} would travel without TLS; set tls_ca, or allow_insecure_token"
                )
            self.read_token()

    def read_token(self) -> str:
        """Return the token as the file has it now: Kubernetes replaces projected tokens while pods run.

        Raises:
            ConfigurationError: The file is missing, unreadable, empty or holds more than one word.
        """
        assert self.token_path is not None  # noqa: S101  for type checkers
        token = _read("token_path", self.token_path).strip()
        if not _TOKEN.fullmatch(token):  # gRPC would refuse it with a message that quotes it
            raise ConfigurationError(f"token_path: {self.token_path} holds no token: one line of printable ASCII")
        return token.decode()

    def channel_credentials(self) -> "grpc.ChannelCredentials":
        """Return what gRPC makes a secure channel from; the files are read anew.

        Raises:
            ConfigurationError: As :meth:`check`.
        """
        import grpc  # noqa: PLC0415  only when something is sent

        self.ssl_context()  # whose errors tell more than gRPC's
        return grpc.ssl_channel_credentials(
            root_certificates=None if self.tls_ca is None else _read("tls_ca", self.tls_ca),
            certificate_chain=None if self.tls_cert is None else _read("tls_cert", self.tls_cert),
            private_key=None if self.tls_key is None else _read("tls_key", self.tls_key),
        )

    def ssl_context(self) -> "ssl.SSLContext":
        """Return the same for the standard library, which explains what is wrong.

        Raises:
            ConfigurationError: A TLS file is missing, unreadable, no PEM, encrypted, or does not fit the other.
        """
        import ssl  # noqa: PLC0415  only with TLS

        context = ssl.create_default_context()
        if self.tls_ca is not None:
            text = _read("tls_ca", self.tls_ca).decode("utf-8", errors="replace")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # these authorities alone, not the system's as well
            try:
                context.load_verify_locations(cadata=text)
            except (ssl.SSLError, ValueError) as error:
                raise ConfigurationError(
                    f"tls_ca: {self.tls_ca} holds no certificate in PEM: {_reason(error)}"
                ) from error
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


class AuthorizedChannel:
    """A channel whose calls carry a bearer token; as much of ``grpc.Channel`` as a stub needs.

    Args:
        channel: The channel; closed with this one.
        read_token: Called for every call.
    """

    def __init__(self, channel: "grpc.Channel", read_token: Callable[[], str]) -> None:
        self._channel = channel
        self._read_token = read_token

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return a callable as ``grpc.Channel.unary_unary`` does."""
        call = self._channel.unary_unary(*arguments, **options)
        return lambda request, timeout: call(
            request, timeout=timeout, metadata=(("authorization", f"Bearer {self._read_token()}"),)
        )

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> "AuthorizedChannel":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        self.close()


def _read(source: str, path: str) -> bytes:
    """Return what a file holds; any failure names the file, and never quotes it."""
    from pathlib import Path  # noqa: PLC0415  only with TLS or a token

    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigurationError(f"{source}: {path} cannot be read: {_reason(error)}") from error
    if not data.strip():
        raise ConfigurationError(f"{source}: {path} is empty")
    return data


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
    return os.fsdecode(reason)
