"""A request's bytes, read on the server's side."""

from typing import Any

import grpc


def decode(request: Any, data: bytes, context: grpc.ServicerContext) -> Any:
    """Return the message in ``data``, or end the call.

    In the place of gRPC's deserializer, which would answer INTERNAL, as if the server were at fault, and keep 16 KB
    for each request that it refuses, for as long as the client's connection lasts; before 1.65 for ever.
    """
    try:
        return request.FromString(data)
    except Exception:  # noqa: BLE001  each protobuf has an error of its own for it, and some a ValueError
        return context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are not a {request.DESCRIPTOR.name}")
