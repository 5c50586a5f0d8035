"""Servicer bases: subclass, implement the methods, hand ``generic_handler()`` to a ``grpc.Server``."""

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
    """The service ``grpc.health.v1.Health``, its ``Check`` alone.

    Probes use nothing else, and the protocol lets a server leave ``Watch`` unimplemented.
    """

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        """Answer whether the service named in the request (empty: the server) is serving."""
        raise NotImplementedError

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return what ``grpc.Server.add_generic_rpc_handlers`` takes."""
        return _generic_handler({methods.HEALTH_CHECK: (self.Check, messages.HealthCheckRequest)})


def _generic_handler(handlers: dict[str, tuple[Any, Any]]) -> grpc.GenericRpcHandler:
    service = next(iter(handlers)).split("/")[1]
    return grpc.method_handlers_generic_handler(
        service,
        {
            path.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(
                _parsing(method, request), response_serializer=lambda reply: reply.SerializeToString()
            )
            for path, (method, request) in handlers.items()
        },
    )


def _parsing(method: Any, request: Any) -> Any:
    """Parse here and not as gRPC's deserializer.

    gRPC would answer INTERNAL, as if the server were at fault, and before 1.65 keep the call and its socket for ever.
    """

    def handle(data: bytes, context: grpc.ServicerContext) -> Any:
        try:
            message = request.FromString(data)
        except Exception:  # noqa: BLE001  each protobuf has an error of its own for it, and some a ValueError
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are no {request.DESCRIPTOR.name}")
        return method(message, context)

    return handle
