"""Messages of our own, beside Katib's: what a trial asks at an epoch's end, and whether it is to stop.

They have a package name and a descriptor pool of their own. Katib's DB manager does not know the service, and answers
UNIMPLEMENTED.
"""

from typing import Any

from katib_callbacks.wire import methods
from katib_callbacks.wire.messages import describe, message_class, pool_of

_PACKAGE = methods.EARLY_STOPPING_SERVICE.rpartition(".")[0]

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

_SERVICES = {methods.EARLY_STOPPING_SERVICE: {"Judge": ("JudgeRequest", "JudgeReply")}}

POOL = pool_of(describe("katib_callbacks/extension.proto", _PACKAGE, _MESSAGES, _SERVICES))

Epoch: Any = message_class(f"{_PACKAGE}.Epoch", POOL)
JudgeRequest: Any = message_class(f"{_PACKAGE}.JudgeRequest", POOL)
JudgeReply: Any = message_class(f"{_PACKAGE}.JudgeReply", POOL)
