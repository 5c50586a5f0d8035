"""Katib's messages and gRPC health, made at import from descriptors written here, in a pool of our own.

Source of the fields: kubeflow/katib v0.19.0, pkg/apis/manager/v1beta1/api.proto, and grpc/grpc-proto, health.proto.
The wire sees only field numbers and method paths, so the files' names are our own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from katib_callbacks.wire import methods

__all__ = [
    "NOT_SERVING",
    "SERVICE_UNKNOWN",
    "SERVING",
    "DeleteObservationLogReply",
    "DeleteObservationLogRequest",
    "GetObservationLogReply",
    "GetObservationLogRequest",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "Metric",
    "MetricLog",
    "ObservationLog",
    "ReportObservationLogReply",
    "ReportObservationLogRequest",
]

_KATIB_PACKAGE = methods.DB_MANAGER_SERVICE.rpartition(".")[0]
_HEALTH_PACKAGE = methods.HEALTH_SERVICE.rpartition(".")[0]

# {message: {field: type}} in the order of the field numbers, which count from 1; "" leaves one out. "[X]" is a repeated
# field, "X?" one of several of which one is set.
_KATIB_MESSAGES = {
    "Metric": {"name": "string", "value": "string"},
    "MetricLog": {"time_stamp": "string", "metric": "Metric"},
    "ObservationLog": {"metric_logs": "[MetricLog]"},
    "ReportObservationLogRequest": {"trial_name": "string", "observation_log": "ObservationLog"},
    "ReportObservationLogReply": {},
    "GetObservationLogRequest": {
        "trial_name": "string",
        "metric_name": "string",
        "start_time": "string",
        "end_time": "string",
    },
    "GetObservationLogReply": {"observation_log": "ObservationLog"},
    "DeleteObservationLogRequest": {"trial_name": "string"},
    "DeleteObservationLogReply": {},
}
_KATIB_SERVICES = {
    methods.DB_MANAGER_SERVICE: {
        name: (f"{name}Request", f"{name}Reply")
        for name in ("ReportObservationLog", "GetObservationLog", "DeleteObservationLog")
    }
}
_HEALTH_MESSAGES = {
    "HealthCheckRequest": {"service": "string"},
    "HealthCheckResponse": {"status": "HealthCheckResponse.ServingStatus"},
}
_HEALTH_SERVICES = {
    methods.HEALTH_SERVICE: {
        "Check": ("HealthCheckRequest", "HealthCheckResponse"),
        "Watch": ("HealthCheckRequest", "stream HealthCheckResponse"),
    }
}
_SERVING_STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    kind: getattr(_Field, f"TYPE_{kind.upper()}")
    for kind in ("string", "bytes", "int32", "int64", "float", "double", "bool")
}


def describe(
    name: str,
    package: str,
    messages: Mapping[str, Mapping[str, str]],
    services: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType({}),
) -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of a file with these messages and services, written as those above are."""
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            if not kind:
                continue
            element = kind.strip("[]?")
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if kind.startswith("[") else _Field.LABEL_OPTIONAL
            if kind.endswith("?"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name=f"message_{message_name.removeprefix('ServerReflection').lower()}")
                field.oneof_index = 0
            if element in _SCALARS:
                field.type = _SCALARS[element]
            else:
                field.type = _Field.TYPE_ENUM if element.endswith("Status") else _Field.TYPE_MESSAGE
                field.type_name = f".{package}.{element}"
    for service_name, calls in services.items():
        service = file.service.add(name=service_name.rpartition(".")[2])
        for method, (request, reply) in calls.items():
            service.method.add(
                name=method,
                input_type=f".{package}.{request.removeprefix('stream ')}",
                output_type=f".{package}.{reply.removeprefix('stream ')}",
                client_streaming=request.startswith("stream "),
                server_streaming=reply.startswith("stream "),
            )
    return file


def pool_of(*files: descriptor_pb2.FileDescriptorProto) -> descriptor_pool.DescriptorPool:
    """Return a pool with the messages of files."""
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _build_pool() -> descriptor_pool.DescriptorPool:
    katib = describe("katib_callbacks/katib.proto", _KATIB_PACKAGE, _KATIB_MESSAGES, _KATIB_SERVICES)
    health = describe("katib_callbacks/health.proto", _HEALTH_PACKAGE, _HEALTH_MESSAGES, _HEALTH_SERVICES)
    statuses = health.message_type[-1].enum_type.add(name="ServingStatus")
    for number, status in enumerate(_SERVING_STATUS):
        statuses.value.add(name=status, number=number)
    return pool_of(katib, health)


POOL = _build_pool()


def message_class(full_name: str, pool: descriptor_pool.DescriptorPool = POOL) -> Any:
    """Return the class of a message in a pool."""
    descriptor = pool.FindMessageTypeByName(full_name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # type: ignore[attr-defined]  # protobuf below 4.22


Metric = message_class(f"{_KATIB_PACKAGE}.Metric")
MetricLog = message_class(f"{_KATIB_PACKAGE}.MetricLog")
ObservationLog = message_class(f"{_KATIB_PACKAGE}.ObservationLog")
ReportObservationLogRequest = message_class(f"{_KATIB_PACKAGE}.ReportObservationLogRequest")
ReportObservationLogReply = message_class(f"{_KATIB_PACKAGE}.ReportObservationLogReply")
GetObservationLogRequest = message_class(f"{_KATIB_PACKAGE}.GetObservationLogRequest")
GetObservationLogReply = message_class(f"{_KATIB_PACKAGE}.GetObservationLogReply")
DeleteObservationLogRequest = message_class(f"{_KATIB_PACKAGE}.DeleteObservationLogRequest")
DeleteObservationLogReply = message_class(f"{_KATIB_PACKAGE}.DeleteObservationLogReply")
HealthCheckRequest = message_class(f"{_HEALTH_PACKAGE}.HealthCheckRequest")
HealthCheckResponse = message_class(f"{_HEALTH_PACKAGE}.HealthCheckResponse")

SERVING = _SERVING_STATUS.index("SERVING")
NOT_SERVING = _SERVING_STATUS.index("NOT_SERVING")
SERVICE_UNKNOWN = _SERVING_STATUS.index("SERVICE_UNKNOWN")
