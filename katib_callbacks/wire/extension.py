"""Messages of our own, beside Katib's: what a trial asks at an epoch's end, and whether it is to stop.

They have a package name and a descriptor pool of their own. Katib's DB manager does not know the service, and answers
UNIMPLEMENTED.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool

from katib_callbacks.wire import methods
from katib_callbacks.wire.messages import message_class

_PACKAGE, _, _SERVICE = methods.EARLY_STOPPING_SERVICE.rpartition(".")

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
}

# As in messages.py: fields in the order of their numbers.
_MESSAGES = {
    "Epoch": {"step": "int64", "value": "double"},
    "JudgeRequest": {
        "trial_name": "string",
        "experiment": "string",  # empty: the trial's name without its last part
        "policy": "string",  # as settings.early_stopping reads it
        "run": "string",  # drawn for each training: what an earlier one said of the same epochs is replaced
        "epochs": "[Epoch]",  # those that no answer has come for, in order; the last one is asked about
        "has_ended": "bool",  # the training ended by itself, with its report delivered
    },
    "JudgeReply": {"stop": "bool", "reason": "string"},
}


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="katib_callbacks/extension.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            element = kind.strip("[]")
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if element != kind else _Field.LABEL_OPTIONAL
            field.type = _SCALARS.get(element, _Field.TYPE_MESSAGE)
            if element not in _SCALARS:
                field.type_name = f".{_PACKAGE}.{element}"
    service = file.service.add(name=_SERVICE)
    service.method.add(name="Judge", input_type=f".{_PACKAGE}.JudgeRequest", output_type=f".{_PACKAGE}.JudgeReply")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _build_pool()

Epoch: Any = message_class(f"{_PACKAGE}.Epoch", POOL)
JudgeRequest: Any = message_class(f"{_PACKAGE}.JudgeRequest", POOL)
JudgeReply: Any = message_class(f"{_PACKAGE}.JudgeReply", POOL)
