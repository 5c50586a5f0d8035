"""Endpoint: where a DB manager listens and how to get there, and the gRPC channels that lead to it."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.addresses import split_address
from katib_callbacks.net.tls import Credentials
from katib_callbacks.settings import Runtime
from katib_callbacks.wire.forks import keep_core_up

if TYPE_CHECKING:
    from katib_callbacks.wire.client import DBManagerStub

PathLike = str | os.PathLike[str]

CHANNEL_OPTIONS = (
    # Every retry is ours: counted, logged, and preceded by a question where the call before may have been stored.
    ("grpc.enable_retries", 0),
    # A new channel connects anew, whatever state an older one to the same address was in.
    ("grpc.use_local_subchannel_pool", 1),
    # SYNs go out at 0, 1 and 3 s: a connection attempt of 5 s notices a silent host's return within 2 s, and leaves
    # a server under a burst the time to shake hands.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The default, two minutes, would turn a silent name server into calls of which nobody knows whether they left.
    ("grpc.dns_ares_query_timeout", 5_000),
    # A trial's history may exceed the default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    # The DB manager is a Service of the cluster; a pod's HTTP_PROXY rarely excludes it and leads outside.
    ("grpc.enable_http_proxy", 0),
)
"""No keepalive pings: below five minutes they earn GOAWAY, and no channel outlives its delivery."""


def check_address(source: str, address: str) -> str:
    """Return ``address`` if it is ``host:port``; the error names its source.

    gRPC's schemes (``dns:``, ``unix:``) are refused: Katib's DB manager listens on TCP, and certificates are checked
    against the host.
    """
    try:
        split_address(address)
    except ValueError as error:
        raise ConfigurationError(
            f"{source} must be host:port, such as katib-db-manager.kubeflow:6789 or [::1]:6789, not {address!r}"
        ) from error
    return address


@dataclass(frozen=True)
class Endpoint:
    """A DB manager's address and the files that make the way there secure; pickles, and holds no secret."""

    address: str
    credentials: Credentials = field(default_factory=Credentials)

    def open(self) -> "DBManagerStub":
        """Open a channel, which connects when it is first used. The caller closes it."""
        import grpc  # noqa: PLC0415  only when something is sent

        from katib_callbacks.wire.client import DBManagerStub  # noqa: PLC0415  as grpc

        keep_core_up()
        if self.credentials.is_tls:
            channel = grpc.secure_channel(self.address, self.credentials.channel_credentials(), options=CHANNEL_OPTIONS)
        else:
            channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        return DBManagerStub(channel, None if self.credentials.token_path is None else self.credentials.read_token)


def resolve_endpoint(
    address: str | None,
    *,
    tls_ca: PathLike | None = None,
    tls_cert: PathLike | None = None,
    tls_key: PathLike | None = None,
    token_path: PathLike | None = None,
    allow_insecure_token: bool | None = None,
    runtime: Runtime,
    address_source: str = "db_manager_address",
) -> Endpoint:
    """Resolve each option (the argument, the variable, the default), and read every file that they name once."""
    source = address_source
    if address is None:
        source = settings.DB_MANAGER_ADDRESS
        address = runtime.variable(source) or settings.DEFAULT_DB_MANAGER_ADDRESS
    credentials = Credentials(
        tls_ca=settings.text(tls_ca, settings.TLS_CA, runtime),
        tls_cert=settings.text(tls_cert, settings.TLS_CERT, runtime),
        tls_key=settings.text(tls_key, settings.TLS_KEY, runtime),
        token_path=settings.text(token_path, settings.TOKEN_PATH, runtime),
        is_token_allowed_in_plaintext=settings.flag(
            "allow_insecure_token", allow_insecure_token, settings.ALLOW_INSECURE_TOKEN, runtime
        ),
    )
    if not settings.is_disabled(runtime):  # then no file is read
        credentials.check()
    return Endpoint(check_address(source, address), credentials)
