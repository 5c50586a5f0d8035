"""Answers that another thread gives than the one that took the call, so that a call keeps no thread while it waits.

To wake a thread takes half of what a report of one row costs. gRPC lets a handler of streams return before it has
answered, but the function that it hands out for the reply waits for the client, who may never read it. So the reply
goes out with the status, by the function that gRPC itself has for that. Where this is not there as it has been since
grpcio 1.62, calls are answered by their own threads.
"""

import inspect
import logging
from typing import Any

from grpc import _server

_send: Any = getattr(_server, "_status", None)
_context_parts = getattr(getattr(_server, "_Context", None), "__annotations__", {})

IS_KNOWN = (
    callable(_send)
    and list(inspect.signature(_send).parameters) == ["rpc_event", "state", "serialized_response"]
    and {"_rpc_event", "_state"} <= set(_context_parts)
)
"""Whether this grpcio has what :func:`answer` needs."""

_logger = logging.getLogger(__name__)


def answer(context: Any, reply: bytes | None) -> None:
    """End a call with a reply, or without one with the status that was set; neither blocks nor raises."""
    try:
        _send(context._rpc_event, context._state, reply)  # noqa: SLF001
    except Exception:
        _logger.exception("a call could not be answered")
