"""Servicer bases: subclass, implement the methods, hand ``generic_handler()`` to a ``grpc.Server``."""

from collections.abc import Callable, Container, Iterator
from typing import Any

import grpc

from katib_callbacks.wire import messages, methods


class DBManagerServicer:
    """The service ``api.v1.beta1.DBManager``. Each method takes a request and a ``grpc.ServicerContext``."""

    def ReportObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Store the request's rows in one atomic batch."""
        raise NotImplementedError

    def GetObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Answer a trial's rows ordered by time."""
        raise NotImplementedError

    def DeleteObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        """Delete a trial's rows."""
        raise NotImplementedError

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return what ``grpc.Server.add_generic_rpc_handlers`` takes."""
        return _generic_handler(
            {
                methods.REPORT_OBSERVATION_LOG: (self.ReportObservationLog, messages.ReportObservationLogRequest),
                methods.GET_OBSERVATION_LOG: (self.GetObservationLog, messages.GetObservationLogRequest),
                methods.DELETE_OBSERVATION_LOG: (self.DeleteObservationLog, messages.DeleteObservationLogRequest),
            }
        )


class HealthServicer:
    """The service ``grpc.health.v1.Health``: probes use its ``Check``, load balancers its ``Watch``."""

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        """Answer whether the service named in the request (empty: the server) is serving."""
        raise NotImplementedError

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802  gRPC's name
        """Answer the same, and again whenever it changes, until the client has seen enough."""
        raise NotImplementedError

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return what ``grpc.Server.add_generic_rpc_handlers`` takes."""
        return _generic_handler(
            {
                methods.HEALTH_CHECK: (self.Check, messages.HealthCheckRequest),
                methods.HEALTH_WATCH: (self.Watch, messages.HealthCheckRequest),
            },
            streaming=(methods.HEALTH_WATCH,),
        )


def _generic_handler(handlers: dict[str, tuple[Any, Any]], streaming: Container[str] = ()) -> grpc.GenericRpcHandler:
    service = next(iter(handlers)).split("/")[1]
    return grpc.method_handlers_generic_handler(
        service,
        {
            path.rpartition("/")[2]: (
                grpc.unary_stream_rpc_method_handler if path in streaming else grpc.unary_unary_rpc_method_handler
            )(
                _decoding(method, request),
                request_deserializer=None,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for path, (method, request) in handlers.items()
        },
    )


def _decoding(method: Callable[[Any, grpc.ServicerContext], Any], request: Any) -> Callable[..., Any]:
    """Return a method that takes bytes."""

    def handle(data: bytes, context: grpc.ServicerContext) -> Any:
        return method(decode(request, data, context), context)

    return handle


def decode(request: Any, data: bytes, context: grpc.ServicerContext) -> Any:
    """Return the message in ``data``, or end the call.

    In the place of gRPC's deserializer, which would answer INTERNAL, as if the server were at fault, and keep 16 KB
    for each request that it refuses, for as long as the client's connection lasts; before 1.65 for ever.
    """
    try:
        return request.FromString(data)
    except Exception:  # noqa: BLE001  each protobuf has an error of its own for it, and some a ValueError
        return context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are not a {request.DESCRIPTOR.name}")
