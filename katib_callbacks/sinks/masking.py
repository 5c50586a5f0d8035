"""MaskingSink: a plug-in's sink, in whose errors no secret of its name is shown."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from katib_callbacks.errors import DeliveryError, KatibCallbacksError
from katib_callbacks.net.masking import label_of, scrub

if TYPE_CHECKING:
    from katib_callbacks.metrics import MetricLog
    from katib_callbacks.sinks import MetricSink, SinkOutcome

T = TypeVar("T")


def discreet(sink: "MetricSink", name: str) -> "MetricSink":
    """Return the sink, in a wrapper that keeps secrets out of its errors if its name has any."""
    return MaskingSink(sink, name) if label_of(name) != name else sink


class MaskingSink:
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
