"""Destinations: the sinks of one reporter, made when they are needed, and closed when they are its own."""

import itertools
import os
import threading
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import KatibCallbacksError, ReporterClosedError
from katib_callbacks.sinks import MetricSink
from katib_callbacks.sinks._names import label_of
from katib_callbacks.sinks._registry import KATIB, SinkFactory

if TYPE_CHECKING:
    from katib_callbacks.sinks._side import SideCourier

_lock = threading.Lock()
"""Guards the making of sinks, in all reporters: it is short, and one lock is simple to renew after a fork."""


class Destinations:
    """The sinks of one reporter. Pickles without anything live; in a forked process all is made anew.

    Sinks with a name are made at once, because one that cannot be right has to show before the training, not after it;
    but for ``katib``, which has nothing more in its name, and loads gRPC, which a process that sends nothing does not
    need.

    Args:
        sinks: Names and objects, the one that counts first.
        factory: Makes those that have a name.

    Raises:
        ConfigurationError: A name that cannot be right, or a plug-in that cannot be made.
        MissingDependencyError: A package is missing.
    """

    def __init__(self, sinks: Sequence[MetricSink | str], factory: SinkFactory) -> None:
        self._sinks = sinks
        self._factory = factory
        self._is_closed = False
        self._pid = os.getpid()
        self._made = {name: factory.make(name) for name in sinks if isinstance(name, str) and name != KATIB}
        self._beside: dict[str, SideCourier] = {}

    def open(self) -> "tuple[tuple[str, MetricSink], list[SideCourier]]":
        """Return the first sink, with the name that a receipt calls it, and those who take rows to the others.

        Raises:
            ReporterClosedError: Closed.
        """
        with _lock:
            if self._is_closed:
                raise ReporterClosedError("the reporter is closed")
            if self._pid != os.getpid():  # after a fork
                self._pid, self._made, self._beside = os.getpid(), {}, {}
            labels: list[str] = []
            for sink in self._sinks:
                labels.append(_unused(label_of(sink) if isinstance(sink, str) else type(sink).__name__, labels))
            first = self._sinks[0]
            if isinstance(first, str):
                if first not in self._made:
                    self._made[first] = self._factory.make(first)
                first = self._made[first]
            for label, sink in zip(labels[1:], self._sinks[1:], strict=True):
                if label not in self._beside:
                    self._beside[label] = self._make_courier(label, sink)
            return (labels[0], first), list(self._beside.values())

    def close(self) -> None:
        """Close the sinks that have a name: the first at once, the others when they have what is on its way to them."""
        with _lock:
            self._is_closed = True
            is_ours = self._pid == os.getpid()
            closing: list[MetricSink | SideCourier] = [*self._made.values(), *self._beside.values()] if is_ours else []
            self._made, self._beside = {}, {}
        for each in closing:
            each.close()

    def _make_courier(self, label: str, sink: MetricSink | str) -> "SideCourier":
        from katib_callbacks.sinks._side import SideCourier, Unmade  # noqa: PLC0415  only where there are several sinks

        if not isinstance(sink, str):
            return SideCourier(label, sink, is_own=False)
        try:
            return SideCourier(label, self._made.pop(sink) if sink in self._made else self._factory.make(sink))
        except KatibCallbacksError as error:  # in a process that the reporter was sent to, or that was forked
            return SideCourier(label, Unmade(error))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_beside": {}}


def _unused(label: str, used: Container[str]) -> str:
    """Return the label, with a number where another sink has it: two of a class, or URLs that differ in a secret."""
    numbered = (label if number == 1 else f"{label} {number}" for number in itertools.count(1))
    return next(each for each in numbered if each not in used)


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  another thread may have held it when the process forked
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)
