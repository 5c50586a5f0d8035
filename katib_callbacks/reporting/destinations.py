"""Destinations: the sinks of one reporter, made when they are needed, and closed when they are its own."""

import contextlib
import itertools
import logging
import os
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import KatibCallbacksError, ReporterClosedError
from katib_callbacks.net.masking import label_of
from katib_callbacks.process_state import locked
from katib_callbacks.sinks import MetricSink, SinkOutcome, close_quietly
from katib_callbacks.sinks.auto import KATIB, NO_TRIAL, Whereabouts, advice_of_nothing
from katib_callbacks.sinks.registry import SinkFactory, is_built_in

if TYPE_CHECKING:
    from katib_callbacks.reporting.background import BackgroundSender
    from katib_callbacks.sinks.katib.endpoint import Endpoint

logger = logging.getLogger(__name__)


class Destinations:
    """The sinks of one reporter, the first of which counts. Pickles without anything live; a fork makes its own.

    Sinks with a name are made at once, because one that cannot be right has to show before the training, not after it;
    except ``katib``, which has nothing more in its name, and loads gRPC, which a process that sends nothing does not
    need. Some have nothing to do here (``idle_reason``), and only those with ``needs_trial = False`` do without a
    trial. One run may exclude others. The first one that is left is the first.
    """

    def __init__(self, where: Whereabouts, factory: SinkFactory) -> None:
        self._where = where
        self._sinks = sinks = where.sinks
        self._factory = factory
        self._is_closed = False
        self._pid = os.getpid()
        self._made = {name: factory.make(name) for name in sinks if isinstance(name, str) and name != KATIB}
        self._senders: dict[str, BackgroundSender] = {}
        self._shown: set[str] = set()  # labels of those that may have progress under way
        self._idle = tuple(map(self._why_idle, sinks))
        made = (self._made.get(sink) if isinstance(sink, str) else sink for sink in sinks)
        listening = [why is None and _has_progress(sink) for sink, why in zip(made, self._idle, strict=True)]
        self._has_listener = any(listening)  # known to a copy as well, which has made none yet
        self._said_idle: set[str] = set()  # one for all copies
        self._give_time()

    @property
    def whereabouts(self) -> Whereabouts:
        """The sinks that have something to do here, and why they were chosen; or why there is none."""
        active = [each for each, why in zip(self._where.chosen, self._idle, strict=True) if why is None]
        if active:
            return Whereabouts(tuple(active))
        nothing = self._where.nothing or "; ".join(dict.fromkeys(filter(None, self._idle)))
        return Whereabouts(
            (), nothing, self._where.advice or advice_of_nothing(self._where.sinks, self._factory.runtime)
        )

    @property
    def show_progress(self) -> bool:
        """Whether a sink shows how far a training is."""
        return self._has_listener and not self._is_closed

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._is_closed

    def idle(self) -> dict[str, str]:
        """Return the sinks that get nothing, by the names that a receipt calls them, and why."""
        return {label: why for label, _, why in self if why is not None}

    def idle_outcomes(self) -> dict[str, SinkOutcome]:
        """Return the receipt's outcomes of the sinks that get nothing, and log it once."""
        idle = self.idle()
        for name in idle.keys() - self._said_idle:
            self._said_idle.add(name)
            logger.info("The sink %r gets nothing: %s.", name, idle[name])
        return {name: SinkOutcome(delivered=0, attempts=0, skipped=why) for name, why in idle.items()}

    def open(self) -> "tuple[tuple[str, MetricSink], list[BackgroundSender]] | None":
        """Return the first sink, with its name in a receipt, and senders to the others; None if no sink has work."""
        with locked():
            self._check()
            idle = self.idle()
            active = [(label, sink) for label, sink, _ in self if label not in idle]
            if not active:
                return None
            (label, first), *others = active
            secondary = [self._sender(*other) for other in others]
            return (label, self._sink(first)), secondary

    def listeners(self) -> list[tuple[str, Any]]:
        """Return the sinks that show how far a training is, with their names, and a local trial's file."""
        path = self._factory.runtime.variable(settings.LOCAL_PROGRESS)
        if path is not None:
            from katib_callbacks.reporting.progress_file import ProgressFile  # noqa: PLC0415  in local trials alone

            return [*self._listening_sinks(), ("progress file", ProgressFile(path, self._factory.runtime))]
        return self._listening_sinks()

    def _listening_sinks(self) -> list[tuple[str, Any]]:
        if not self._has_listener:
            return []
        with locked():
            self._check()
            idle = self.idle()
            named = [(label, sink) for label, sink, _ in self if label not in idle and sink != KATIB]
            found: list[tuple[str, Any]] = []
            for label, sink in named:
                with contextlib.suppress(KatibCallbacksError):  # who delivers says why it cannot be made any more
                    found.append((label, self._sink(sink)))
            shown = [(label, sink) for label, sink in found if _has_progress(sink)]
            self._shown.update(label for label, _ in shown)
            return shown

    def db_manager(self) -> "Endpoint | None":
        """Return the DB manager that gets rows; None if none does."""
        idle = self.idle()
        is_told = any(sink == KATIB and label not in idle for label, sink, _ in self)
        return self._factory.endpoint if is_told else None

    def __iter__(self) -> Iterator[tuple[str, MetricSink | str, str | None]]:
        """Yield each sink: its name in receipts, the sink, why it has nothing to do."""
        labels: list[str] = []
        for sink, why in zip(self._sinks, self._idle, strict=True):
            labels.append(_unused(label_of(sink) if isinstance(sink, str) else type(sink).__name__, labels))
            yield labels[-1], sink, why

    def close(self) -> None:
        """Close the sinks that have a name: the first at once, the others when they have what is on its way to them."""
        with locked():
            self._is_closed = True
            is_ours = self._pid == os.getpid()
            active = [label for label, _, why in self if why is None]
            at_once: list[tuple[str, MetricSink]] = []
            for label, sink, _ in self if is_ours else ():
                if not isinstance(sink, str) or sink not in self._made or label in self._senders:
                    continue
                is_first = not active or label == active[0]
                if not is_first and (label in self._shown or not is_built_in(sink)):
                    self._sender(label, sink)  # its close() may wait, or not return
                else:
                    at_once.append((label, self._made[sink]))
            senders = list(self._senders.values()) if is_ours else []
            self._made, self._senders = {}, {}
        for label, made in at_once:
            close_quietly(label, made)
        for sender in senders:
            sender.close()

    def check_open(self) -> None:
        """Raise ReporterClosedError if closed."""
        if self._is_closed:
            raise ReporterClosedError("the reporter is closed")

    def _check(self) -> None:
        self.check_open()
        if self._pid != os.getpid():  # after a fork
            self._pid, self._made, self._senders = os.getpid(), {}, {}

    def _why_idle(self, sink: MetricSink | str) -> str | None:
        made = self._made.get(sink) if isinstance(sink, str) else sink
        if self._factory.trial_name is None and getattr(made, "needs_trial", True):
            return NO_TRIAL
        reason: str | None = getattr(made, "idle_reason", None)
        return reason

    def _sink(self, sink: MetricSink | str) -> MetricSink:
        if not isinstance(sink, str):
            return sink
        if sink not in self._made:
            self._made[sink] = self._factory.make(sink)
            self._give_time()
        return self._made[sink]

    def _give_time(self) -> None:
        """Let the first sink show the end of a training for as long as a report may take; the others have little."""
        first = next((sink for sink, why in zip(self._sinks, self._idle, strict=True) if why is None), None)
        made = self._made.get(first) if isinstance(first, str) else None
        if made is not None and hasattr(made, "close_s"):
            made.close_s = self._factory.timeout_s

    def _sender(self, label: str, sink: MetricSink | str) -> "BackgroundSender":
        if label in self._senders:
            return self._senders[label]
        from katib_callbacks.reporting.background import BackgroundSender  # noqa: PLC0415  only where there are several sinks

        try:
            sender = BackgroundSender(label, self._sink(sink), is_own=isinstance(sink, str))
        except KatibCallbacksError as error:  # in a process that the reporter was sent to, or that was forked
            sender = BackgroundSender(label, error, is_own=False)
        self._senders[label] = sender
        return sender

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_senders": {}}


def _has_progress(sink: object) -> bool:
    return callable(getattr(sink, "progress", None))


def _unused(label: str, used: Container[str]) -> str:
    """Return the label, with a number where another sink has it: two of a class, or URLs that differ in a secret."""
    numbered = (label if number == 1 else f"{label} {number}" for number in itertools.count(1))
    return next(each for each in numbered if each not in used)
