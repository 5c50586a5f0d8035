"""The pod's termination message: why a trial has no number, in the place where ``kubectl describe pod`` shows it."""

import contextlib
import os
import stat
from collections.abc import Iterable

from katib_callbacks import settings
from katib_callbacks.net.masking import MASK, label_of, scrub, without_credentials
from katib_callbacks.settings import Runtime

PREFIX = "katib-callbacks: "
"""Begins what we write: anything else in the file is the program's, and stays."""

MAX_BYTES = 4096
"""The kubelet reads no more of one container's message."""

DELIVERY = "delivery"
NOTHING_SHOWN = "nothing shown"
RANK = "rank"

_said: dict[str, str] = {}


def explain(runtime: Runtime | None, key: str, sentence: str) -> None:
    """Write a sentence, beside those of other keys; never raises, waits for nothing, and does nothing outside a pod.

    Where ``runtime`` is None, because this is no trial, it does nothing either, and so does :func:`withdraw`.
    """
    if runtime is None:
        return
    with contextlib.suppress(Exception):
        _said[key] = _masked(" ".join(sentence.split()), runtime).rstrip(".")
        _write(runtime)


def withdraw(runtime: Runtime | None, keys: Iterable[str]) -> None:
    """Take back sentences that are true no more, as :func:`explain` writes them."""
    if runtime is None or not _said:
        return
    with contextlib.suppress(Exception):
        if [key for key in keys if _said.pop(key, None) is not None]:
            _write(runtime)


def message_path(runtime: Runtime) -> str | None:
    """Return the file of this container's message; None outside a pod."""
    named = runtime.variable(settings.TERMINATION_MESSAGE_PATH)
    if named is not None or "KUBERNETES_SERVICE_HOST" not in runtime.environ():
        return named
    return settings.TERMINATION_LOG


def _write(runtime: Runtime) -> None:
    path = message_path(runtime)
    if path is None:
        return
    # No file is made: the kubelet has mounted the right one. Without O_NONBLOCK a FIFO would be waited for.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not is_ours(file.read(MAX_BYTES + 1)):
            return
        file.seek(0)
        file.truncate()
        if _said:
            file.write(_cut(PREFIX + "; ".join(_said.values())))


def is_ours(content: bytes) -> bool:
    """Return whether the file is empty or has one line of ours, and nothing that the program has added to it."""
    return not content or (content.startswith(PREFIX.encode()) and content.find(b"\n") == len(content) - 1)


def _cut(line: str) -> bytes:
    data = "".join(letter if letter.isprintable() else "?" for letter in line).encode(errors="replace")
    if len(data) < MAX_BYTES:
        return data + b"\n"
    return data[: MAX_BYTES - 4].decode(errors="ignore").encode() + "…\n".encode()


def _masked(text: str, runtime: Runtime) -> str:
    """Mask what a pod's status must not show: more people read it than logs, and a server may quote what it got."""
    for variable in (settings.TOKEN_PATH, settings.TRAINER_SERVER_TOKEN):
        path = runtime.variable(variable)
        if path is not None and (token := _content(path)):
            text = text.replace(token, MASK)
    for name in settings.sink_names(runtime):
        if label_of(name) != name:
            text = scrub(text, name)
    return without_credentials(text)


def _content(path: str) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:  # noqa: PTH123  no pathlib
        return file.read(64 * 1024).strip()
    return ""
