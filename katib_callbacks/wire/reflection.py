"""gRPC server reflection: tools such as grpcurl ask a server what it serves, and need no file of ours.

Source of the fields: grpc/grpc-proto, grpc/reflection/v1/reflection.proto. The older v1alpha, which many tools ask
first, has the same fields. The package ``grpcio-reflection`` demands a newer protobuf than trials may have.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
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


def _file(package: str) -> descriptor_pb2.FileDescriptorProto:
    name = f"katib_callbacks/{package.rpartition('.')[2]}_reflection.proto"
    file = messages.describe(name, package, _MESSAGES)
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


for _package in VERSIONS:
    messages.POOL.AddSerializedFile(_file(_package).SerializeToString())

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
        file = next((file for file in _FILES if _has_symbol(file, request.file_containing_symbol)), None)
    if file is not None:
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
    elif question == "all_extension_numbers_of_type" and any(
        _has_symbol(file, request.all_extension_numbers_of_type) for file in _FILES
    ):
        response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
    else:
        response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
        response.error_response.error_message = "there is no such file, symbol or extension"
    return response


def _has_symbol(file: FileDescriptor, symbol: str) -> bool:
    """Return whether a service, method, message or a field or enum in one, by its full name, stands in a file."""
    package, _, name = symbol.lstrip(".").partition(file.package + ".")
    head, _, tail = name.partition(".")
    if package or not head:
        return False
    if head in file.services_by_name:
        return not tail or tail in file.services_by_name[head].methods_by_name
    if head not in file.message_types_by_name:
        return False
    message = file.message_types_by_name[head]
    return not tail or tail in message.fields_by_name or tail in message.enum_types_by_name
