"""Where the server listens: addresses read strictly, and clear errors for those that cannot be had."""

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from katib_callbacks.db_manager.service.limits import connection_options
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net import addresses as net_addresses

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""The most rows that Katib's own DB manager takes in a request (16,383), with names of 255 four-byte characters, come
to 18 MB; gRPC's default of 4 MiB is below that. Without a limit one request could fill the memory."""

KEEPALIVE_S = 60
"""How often a silent client is asked whether it still lives, lest its calls stay for hours."""


def check_address(address: str) -> None:
    """Find out whether ``host:port`` can be listened on, and if not, why: gRPC does not say why.

    Addresses of a host that this machine lacks (IPv6 in many containers) do not matter as long as one is left, but one
    that is in use does: clients would reach its owner.
    """
    host, port = split_address(address)
    try:
        candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that no host name can have
        raise ConfigurationError(f"cannot listen on {address}: unknown host {host!r} ({error})") from error
    failures = [failure for candidate in candidates if (failure := _failure_to_bind(*candidate))]
    in_use = [failure for failure in failures if failure.errno == errno.EADDRINUSE]
    if in_use or len(failures) == len(candidates):
        failure = (in_use or failures)[0]
        raise ConfigurationError(f"cannot listen on {address}: {failure.strerror or failure}") from failure


def make_server(workers: ThreadPoolExecutor, *options: tuple[str, int]) -> grpc.Server:
    """Return a server that listens nowhere yet, with the options of every listener and these."""
    return grpc.server(
        workers,
        options=(
            ("grpc.so_reuseport", 0),  # otherwise a second server on the port would silently take half the calls
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_S * 1_000),
            *connection_options(),
            *options,
        ),
    )


def bind(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Let ``server`` listen on a checked address, in plaintext without credentials; returns it with its port."""
    try:
        if credentials is None:
            taken = server.add_insecure_port(address)
        else:
            taken = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error}") from error
    if not taken:  # older grpcio returns 0 in place of raising
        raise ConfigurationError(f"cannot listen on {address}")
    return f"{address.rpartition(':')[0]}:{taken}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port."""
    try:
        return net_addresses.split_address(address, lowest_port=0)
    except ValueError as error:
        raise ConfigurationError(
            f"{address!r} is not an address to listen on; write host:port, such as 127.0.0.1:6789 or [::1]:6789"
        ) from error


def _failure_to_bind(family: int, kind: int, protocol: int, _name: str, address: Any) -> OSError | None:
    try:
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # elsewhere the option lets two servers share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
