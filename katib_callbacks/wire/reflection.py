"""gRPC server reflection: tools such as grpcurl ask a server what it serves, and need no file of ours.

Source of the fields: grpc/grpc-proto, grpc/reflection/v1/reflection.proto. The older v1alpha, which many tools ask
first, has the same fields. The package ``grpcio-reflection`` demands a newer protobuf than trials may have.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor

from katib_callbacks.wire import extension, messages, methods
from katib_callbacks.wire.server import decode

VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")

# As in messages.py.
_MESSAGES = {
    "ServerReflectionRequest": {
        "host": "string",
        "2": "",
        "file_by_filename": "string?",
        "file_containing_symbol": "string?",
        "file_containing_extension": "ExtensionRequest?",
        "all_extension_numbers_of_type": "string?",
        "list_services": "string?",
    },
    "ExtensionRequest": {"containing_type": "string", "extension_number": "int32"},
    "ServerReflectionResponse": {
        "valid_host": "string",
        "original_request": "ServerReflectionRequest",
        "3": "",
        "file_descriptor_response": "FileDescriptorResponse?",
        "all_extension_numbers_response": "ExtensionNumberResponse?",
        "list_services_response": "ListServiceResponse?",
        "error_response": "ErrorResponse?",
    },
    "FileDescriptorResponse": {"file_descriptor_proto": "[bytes]"},
    "ExtensionNumberResponse": {"base_type_name": "string", "extension_number": "[int32]"},
    "ListServiceResponse": {"service": "[ServiceResponse]"},
    "ServiceResponse": {"name": "string"},
    "ErrorResponse": {"error_code": "int32", "error_message": "string"},
}


_SERVICES = {
    "ServerReflection": {"ServerReflectionInfo": ("stream ServerReflectionRequest", "stream ServerReflectionResponse")}
}

for _package in VERSIONS:
    _name = f"katib_callbacks/{_package.rpartition('.')[2]}_reflection.proto"
    _described = messages.describe(_name, _package, _MESSAGES, _SERVICES)
    messages.POOL.AddSerializedFile(_described.SerializeToString())

Request = messages.message_class(f"{VERSIONS[0]}.ServerReflectionRequest")
Response = messages.message_class(f"{VERSIONS[0]}.ServerReflectionResponse")
SERVICES = (
    methods.DB_MANAGER_SERVICE,
    methods.HEALTH_SERVICE,
    methods.EARLY_STOPPING_SERVICE,
    *(f"{package}.ServerReflection" for package in VERSIONS),
)

_FILES: tuple[FileDescriptor, ...] = tuple(
    (extension.POOL if name == methods.EARLY_STOPPING_SERVICE else messages.POOL).FindServiceByName(name).file
    for name in SERVICES
)


def _symbols(file: Any) -> Iterator[str]:
    """Yield the full names of services, methods, messages, and the fields and enums in these."""
    for service in file.services_by_name.values():
        yield from (service.full_name, *(method.full_name for method in service.methods))
    for message in file.message_types_by_name.values():
        yield from (message.full_name, *(part.full_name for part in (*message.fields, *message.enum_types)))


_FILE_OF = {symbol: file for file in _FILES for symbol in _symbols(file)}


def generic_handler(version: str) -> grpc.GenericRpcHandler:
    """Return what ``grpc.Server.add_generic_rpc_handlers`` takes, for one of ``VERSIONS``."""
    handler: Any = grpc.stream_stream_rpc_method_handler(
        _answer_all,
        request_deserializer=None,
        response_serializer=lambda reply: reply.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(f"{version}.ServerReflection", {"ServerReflectionInfo": handler})


def _answer_all(requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
    for data in requests:
        yield answer(decode(Request, data, context))  # both versions have the same bytes


def answer(request: Any) -> Any:
    """Return the response to one request."""
    response = Response(valid_host=request.host, original_request=request)
    question = request.WhichOneof("message_request")
    if question == "list_services":
        for name in SERVICES:
            response.list_services_response.service.add(name=name)
        return response
    file = None
    if question == "file_by_filename":
        file = next((file for file in _FILES if file.name == request.file_by_filename), None)
    elif question == "file_containing_symbol":
        file = _FILE_OF.get(request.file_containing_symbol.lstrip("."))
    if file is not None:
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
    elif question == "all_extension_numbers_of_type" and request.all_extension_numbers_of_type.lstrip(".") in _FILE_OF:
        response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
    else:
        response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
        response.error_response.error_message = "there is no such file, symbol or extension"
    return response
