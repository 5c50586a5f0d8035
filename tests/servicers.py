"""Servicers of tests: Katib's service and gRPC's health as classes to fill in, on a real ``grpc.Server``."""

from typing import ClassVar

import grpc

from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.server import decode


class DBManagerServicer:
    """The service ``api.v1.beta1.DBManager``: define the methods that a test needs, named as Katib names them."""

    REQUESTS: ClassVar = {
        methods.REPORT_OBSERVATION_LOG: messages.ReportObservationLogRequest,
        methods.GET_OBSERVATION_LOG: messages.GetObservationLogRequest,
        methods.DELETE_OBSERVATION_LOG: messages.DeleteObservationLogRequest,
    }

    def generic_handler(self):
        """Return what ``grpc.Server.add_generic_rpc_handlers`` takes; a method that is not defined is UNIMPLEMENTED."""
        handlers = {}
        for path, request in self.REQUESTS.items():
            _, service, name = path.split("/")
            if hasattr(self, name):
                handlers[name] = _handler(getattr(self, name), request)
        return grpc.method_handlers_generic_handler(service, handlers)


class HealthServicer(DBManagerServicer):
    """The service ``grpc.health.v1.Health``, its ``Check``."""

    REQUESTS: ClassVar = {methods.HEALTH_CHECK: messages.HealthCheckRequest}


def _handler(method, request):
    return grpc.unary_unary_rpc_method_handler(
        lambda data, context: method(decode(request, data, context), context),
        request_deserializer=None,
        response_serializer=lambda reply: reply.SerializeToString(),
    )
