"""Names of sinks, which look like URLs: what they choose, how they are shown, what of them no message may show."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from katib_callbacks.errors import DeliveryError, KatibCallbacksError

if TYPE_CHECKING:
    from katib_callbacks.metrics import MetricLog
    from katib_callbacks.sinks import MetricSink, SinkOutcome

MASK = "***"

MIN_SECRET_CHARACTERS = 4
"""A shorter secret is looked for nowhere but in the whole name: its letters are part of any message."""

# What stands before the last @ may be a password, with characters in it that should have been percent-encoded. A path
# (``file:///a@b``) has a third slash.
_USER = r"^([^:]*:(?://)?)(?!/)(.*)@"
_QUERY = r"[?#].*"

T = TypeVar("T")


def scheme_of(name: str) -> str:
    """Return what chooses the sink: what stands before the first colon, or all of it."""
    return name.partition(":")[0]


def label_of(name: str) -> str:
    """Return the name as it may be shown: user and password, query and fragment are masked.

    What has an @ and no colon is the rest of a name that a comma in its password has cut in two.
    """
    if ":" not in name:
        name = re.sub(r"^.*@", f"{MASK}@", name, flags=re.DOTALL)
    shown = re.sub(_USER, rf"\g<1>{MASK}@", name, flags=re.DOTALL)
    return re.sub(_QUERY, f"?{MASK}", shown, flags=re.DOTALL)


def scrub(text: str, name: str) -> str:
    """Return a message of somebody else's without what the name keeps secret."""
    text = text.replace(name, label_of(name))
    for secret in _secrets(name):
        text = text.replace(secret, MASK)
    return text


def describe(error: BaseException, name: str) -> str:
    """Return an error's type and message, scrubbed."""
    return f"{type(error).__name__}: {scrub(str(error), name)}"


def discreet(sink: "MetricSink", name: str) -> "MetricSink":
    """Return the sink, in a wrapper that keeps secrets out of its errors if its name has any."""
    return Discreet(sink, name) if label_of(name) != name else sink


class Discreet:
    """A plug-in's sink whose name holds a secret: what it raises and answers is scrubbed.

    Args:
        sink: The plug-in's.
        name: Its whole name.
    """

    def __init__(self, sink: "MetricSink", name: str) -> None:
        self._sink = sink
        self._name = name

    def send(self, trial_name: str, logs: "Sequence[MetricLog]", *, deadline_s: float) -> "SinkOutcome":
        """See :class:`katib_callbacks.MetricSink`."""
        from dataclasses import replace  # noqa: PLC0415  for plug-ins alone

        outcome = self._calling(self._sink.send, trial_name, logs, deadline_s=deadline_s)
        error = getattr(outcome, "error", None)
        return replace(outcome, error=scrub(error, self._name)) if isinstance(error, str) else outcome

    def close(self) -> None:
        """See :class:`katib_callbacks.MetricSink`."""
        self._calling(self._sink.close)

    def __getattr__(self, attribute: str) -> Any:
        """Return what else it has, such as ``progress``."""
        value = getattr(self._sink, attribute)
        return (lambda *a, **k: self._calling(value, *a, **k)) if callable(value) else value

    def _calling(self, method: Callable[..., T], *arguments: object, **keywords: object) -> T:
        try:
            return method(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001  whatever a plug-in raises
            _raise_scrubbed(error, self._name)


def _raise_scrubbed(error: Exception, name: str) -> NoReturn:
    """Raise the error as it is, or one without its secret, and then without its cause, which has it too."""
    text = scrub(str(error), name)
    if text == str(error):
        raise error
    if isinstance(error, DeliveryError):
        raise type(error)(text, attempts=error.attempts, pending=error.pending) from None
    if isinstance(error, KatibCallbacksError):
        raise type(error)(text) from None
    raise RuntimeError(f"{type(error).__name__}: {text}") from None


def _secrets(name: str) -> list[str]:
    """Return what must not be shown, the longest first."""
    if label_of(name) == name:
        return []
    from urllib.parse import parse_qsl, unquote  # noqa: PLC0415  for names with secrets alone

    match = re.match(_USER, name, re.DOTALL)
    parts: list[str] = []
    if match:
        user, colon, password = match[2].partition(":")
        parts = [match[2], password if colon else user]
    parts += [value for _key, value in parse_qsl(name.partition("?")[2])]
    long_enough = {form for part in parts for form in (part, unquote(part)) if len(form) >= MIN_SECRET_CHARACTERS}
    return sorted(long_enough, key=len, reverse=True)
