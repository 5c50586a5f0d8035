"""Destinations: the sinks of one reporter, made when they are needed, and closed when they are its own."""

import contextlib
import itertools
import logging
import os
from collections.abc import Container
from typing import TYPE_CHECKING, Any, NamedTuple

from katib_callbacks import settings
from katib_callbacks.errors import KatibCallbacksError, ReporterClosedError
from katib_callbacks.net.masking import label_of
from katib_callbacks.process_state import locked
from katib_callbacks.sinks import MetricSink, SinkOutcome, close_quietly
from katib_callbacks.sinks.auto import KATIB, NO_TRIAL, Whereabouts, advice_of_nothing
from katib_callbacks.sinks.registry import ReporterOptions, is_built_in

if TYPE_CHECKING:
    from katib_callbacks.reporting.background import BackgroundSender
    from katib_callbacks.sinks.katib.endpoint import Endpoint

logger = logging.getLogger(__name__)


class _Destination(NamedTuple):
    """A sink, its name in receipts, and why it has nothing to do; None if it has."""

    label: str
    sink: "MetricSink | str"
    idle: str | None


class Destinations:
    """The sinks of one reporter, the first of which counts. Pickles without anything live; a fork makes its own.

    Sinks with a name are made at once, because one that cannot be right has to show before the training, not after it;
    except ``katib``, which has nothing more in its name, and loads gRPC, which a process that sends nothing does not
    need. Some have nothing to do here (``idle_reason``), and only those with ``needs_trial = False`` do without a
    trial. The first one that is left is the first.

    Attributes:
        whereabouts: The sinks that have something to do here, and why they were chosen; or why there is none.
        is_closed: Whether :meth:`close` was called.
    """

    def __init__(self, where: Whereabouts, options: ReporterOptions) -> None:
        self._options = options
        self.is_closed = False
        self._pid = os.getpid()
        self._made = {name: options.make(name) for name in where.sinks if isinstance(name, str) and name != KATIB}
        self._senders: dict[str, BackgroundSender] = {}
        self._shown: set[str] = set()  # labels of those that may have progress under way
        self._said_idle: set[str] = set()  # one for all copies
        self._active: list[_Destination] = []
        self._idle: list[_Destination] = []
        labels: list[str] = []
        chosen = []
        for each in where.chosen:
            sink, made = each.sink, self._made.get(each.sink) if isinstance(each.sink, str) else each.sink
            labels.append(_unused(label_of(sink) if isinstance(sink, str) else type(sink).__name__, labels))
            why: str | None = getattr(made, "idle_reason", None)
            if options.trial_name is None and getattr(made, "needs_trial", True):
                why = NO_TRIAL
            (self._active if why is None else self._idle).append(_Destination(labels[-1], sink, why))
            chosen += [each] if why is None else []
        self.whereabouts = Whereabouts(tuple(chosen))
        if not chosen:
            nothing = where.nothing or "; ".join(dict.fromkeys(str(each.idle) for each in self._idle))
            self.whereabouts = Whereabouts((), nothing, where.advice or advice_of_nothing(where.sinks, options.runtime))
        listening = [sink if not isinstance(sink, str) else self._made.get(sink) for _, sink, _ in self._active]
        self._has_listener = any(map(_has_progress, listening))  # known to a copy as well, which has made none
        self._give_time()

    @property
    def show_progress(self) -> bool:
        """Whether a sink shows how far a training is."""
        return self._has_listener and not self.is_closed

    def idle_outcomes(self) -> dict[str, SinkOutcome]:
        """Return the receipt's outcomes of the sinks that get nothing, and log it once."""
        for name, _, why in self._idle:
            if name not in self._said_idle:
                self._said_idle.add(name)
                logger.info("The sink %r gets nothing: %s.", name, why)
        return {name: SinkOutcome(delivered=0, attempts=0, skipped=why) for name, _, why in self._idle}

    def open(self) -> "tuple[tuple[str, MetricSink], list[BackgroundSender]] | None":
        """Return the first sink, with its name in a receipt, and senders to the others; None if no sink has work."""
        with locked():
            self._check()
            if not self._active:
                return None
            (label, first, _), *others = self._active
            secondary = [self._sender(other, sink) for other, sink, _ in others]
            return (label, self._sink(first)), secondary

    def listeners(self) -> list[tuple[str, Any]]:
        """Return the sinks that show how far a training is, with their names, and a local trial's file."""
        path = self._options.runtime.variable(settings.LOCAL_PROGRESS)
        if path is not None:
            from katib_callbacks.reporting.progress_file import ProgressFile  # noqa: PLC0415  in local trials alone

            return [*self._listening_sinks(), ("progress file", ProgressFile(path, self._options.runtime))]
        return self._listening_sinks()

    def _listening_sinks(self) -> list[tuple[str, Any]]:
        if not self._has_listener:
            return []
        with locked():
            self._check()
            shown: list[tuple[str, Any]] = []
            for label, sink, _ in self._active:
                with contextlib.suppress(KatibCallbacksError):  # who delivers says why it cannot be made any more
                    if sink != KATIB and _has_progress(self._sink(sink)):
                        shown.append((label, self._sink(sink)))
            self._shown.update(label for label, _ in shown)
            return shown

    def db_manager(self) -> "Endpoint | None":
        """Return the DB manager that gets rows; None if none does."""
        return self._options.endpoint if any(sink == KATIB for _, sink, _ in self._active) else None

    def close(self) -> None:
        """Close the sinks that have a name: the first at once, the others when they have what is on its way to them."""
        with locked():
            self.is_closed = True
            is_ours = self._pid == os.getpid()
            at_once: list[tuple[str, MetricSink]] = []
            for label, sink, _ in [*self._active, *self._idle] if is_ours else ():
                if not isinstance(sink, str) or sink not in self._made or label in self._senders:
                    continue
                is_first = label == self._active[0].label if self._active else True
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
        if self.is_closed:
            raise ReporterClosedError("the reporter is closed")

    def _check(self) -> None:
        self.check_open()
        if self._pid != os.getpid():  # after a fork
            self._pid, self._made, self._senders = os.getpid(), {}, {}

    def _sink(self, sink: MetricSink | str) -> MetricSink:
        if not isinstance(sink, str):
            return sink
        if sink not in self._made:
            self._made[sink] = self._options.make(sink)
            self._give_time()
        return self._made[sink]

    def _give_time(self) -> None:
        """Let the first sink show the end of a training for as long as a report may take; the others have little."""
        first = self._active[0].sink if self._active else None
        made = self._made.get(first) if isinstance(first, str) else None
        if made is not None and hasattr(made, "close_s"):
            made.close_s = self._options.timeout_s

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
