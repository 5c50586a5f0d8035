"""``katib-health-probe``: ask a gRPC server for its health, and say so by the exit status.

For manifests whose probes run ``/bin/grpc_health_probe -addr=:6789``, as Katib's did before the kubelet could ask by
itself: with the flags and exit statuses of https://github.com/grpc-ecosystem/grpc-health-probe.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from katib_callbacks.cli.db_manager import duration

EXIT_SERVING = 0
EXIT_UNREACHABLE = 2
EXIT_FAILED = 3
EXIT_NOT_SERVING = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status: 0 if the server is serving."""
    parser = argparse.ArgumentParser(prog="katib-health-probe", description="Ask a gRPC server for its health.")
    parser.add_argument("-addr", "--addr", required=True, metavar="HOST:PORT", help="without a host: this machine")
    parser.add_argument("-service", "--service", default="", help="whose health (default: the server's)")
    parser.add_argument("-connect-timeout", "--connect-timeout", type=duration, default=1.0, metavar="DURATION")
    parser.add_argument("-rpc-timeout", "--rpc-timeout", type=duration, default=1.0, metavar="DURATION")
    arguments = parser.parse_args(argv)
    return probe(arguments.addr, arguments.service, arguments.connect_timeout, arguments.rpc_timeout)


def probe(address: str, service: str, connect_timeout_s: float, rpc_timeout_s: float) -> int:
    """Ask once; return the exit status and print what it means."""
    import grpc  # noqa: PLC0415  --help needs none

    from katib_callbacks.wire import messages, methods  # noqa: PLC0415  as grpc

    target = f"localhost{address}" if address.startswith(":") else address
    with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=connect_timeout_s)
        except grpc.FutureTimeoutError:
            print(f"no connection to {target} within {connect_timeout_s:g} s", file=sys.stderr)
            return EXIT_UNREACHABLE
        request = messages.HealthCheckRequest(service=service).SerializeToString()
        answer = messages.HealthCheckResponse
        check: Any = channel.unary_unary(methods.HEALTH_CHECK, response_deserializer=answer.FromString)
        try:
            status = check(request, timeout=rpc_timeout_s).status
        except grpc.RpcError as error:
            print(f"the health check failed: {error.code().name} {error.details()}", file=sys.stderr)
            return EXIT_FAILED
    is_serving = status == messages.SERVING
    print("serving" if is_serving else "not serving")
    return EXIT_SERVING if is_serving else EXIT_NOT_SERVING
