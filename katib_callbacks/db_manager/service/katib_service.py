"""The services of the plaintext listener: Katib's methods, early stopping, health, and reflection."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.callers import OwnCallers
from katib_callbacks.db_manager.service.health import Health
from katib_callbacks.db_manager.service.limits import Places
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.store.errors import BusyError
from katib_callbacks.wire import extension, messages, methods, reflection
from katib_callbacks.wire.server import decode

NOT_OURS = "this DB manager answers only the user who has started it; let the process run as that user"

MAX_REFLECTIONS = 8
"""Calls of reflection at once: each keeps a thread for as long as its client asks."""


_WRITING = (methods.REPORT_OBSERVATION_LOG, methods.DELETE_OBSERVATION_LOG, methods.JUDGE)


class KatibService(grpc.GenericRpcHandler):
    """The handler for ``grpc.Server.add_generic_rpc_handlers``.

    Each method takes a stream, though clients send one request: so it is asked for only when there is a place for it.
    """

    def __init__(
        self,
        servicer: Servicer,
        health: Health,
        arrivals: Arrivals,
        *,
        is_read_only: bool = False,
        callers: OwnCallers | None = None,
    ) -> None:
        self._arrivals = arrivals
        self._callers = callers
        self._reflections = Places(MAX_REFLECTIONS, "too many calls of reflection; try again")
        self._health = health
        self._handlers = {
            methods.REPORT_OBSERVATION_LOG: self._unary(messages.ReportObservationLogRequest, servicer.report),
            methods.GET_OBSERVATION_LOG: self._unary(messages.GetObservationLogRequest, servicer.get),
            methods.DELETE_OBSERVATION_LOG: self._unary(messages.DeleteObservationLogRequest, servicer.delete),
            methods.JUDGE: self._unary(extension.JudgeRequest, servicer.judge),
            methods.HEALTH_CHECK: self._unary(messages.HealthCheckRequest, health.Check),
            methods.HEALTH_WATCH: streaming(self._watch),
        }
        if is_read_only:
            for method in _WRITING:
                del self._handlers[method]
        self._reflection = [reflection.generic_handler(version) for version in reflection.VERSIONS]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return what answers a call of a method; None for one that there is not."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is not None:
            return handler
        for reflecting in self._reflection:
            handler = reflecting.service(handler_call_details)
            if handler is not None:
                return streaming(self._bounded(handler.stream_stream))
        return None

    def _unary(self, request_class: Any, answer: Callable[[Any, grpc.ServicerContext], Any]) -> Any:
        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            if self._callers is not None and not self._callers.has(context.peer()):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, NOT_OURS)
            with self._arrivals.request(context.peer(), requests, context) as received:
                return answer(only_request(request_class, received, context), context)

        return unary(handle)

    def _watch(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with self._arrivals.request(context.peer(), requests, context) as received:
            request = only_request(messages.HealthCheckRequest, received, context)
        yield from self._health.Watch(request, context)

    def _bounded(self, answer: Any) -> Callable[..., Iterator[Any]]:
        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._reflections.enter(), self._arrivals.limit(context.peer(), context):
                yield from answer(requests, context)

        return handle


def only_request(request_class: Any, received: list[bytes], context: grpc.ServicerContext) -> Any:
    """Take the one request out of what was received, and parse it."""
    if not received:
        return context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no request")
    return decode(request_class, received.pop(), context)


def unary(answer: Callable[[Iterator[bytes], grpc.ServicerContext], Any]) -> Any:
    """Return the handler of a method with one reply; where there is no room the client is to try again."""

    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        try:
            return answer(requests, context)
        except BusyError as error:
            return context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    return grpc.stream_unary_rpc_method_handler(handle, request_deserializer=None, response_serializer=_serialize)


def streaming(answer: Callable[..., Iterator[Any]]) -> Any:
    """Return the handler of a method with many replies, as :func:`unary` does."""

    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from answer(requests, context)
        except BusyError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    return grpc.stream_stream_rpc_method_handler(handle, request_deserializer=None, response_serializer=_serialize)


def _serialize(reply: Any) -> bytes:
    """Return the bytes of a reply, which may be bytes already."""
    data: bytes = reply if isinstance(reply, bytes) else reply.SerializeToString()
    return data
