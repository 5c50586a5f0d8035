"""Doubts: warnings of metrics that have no value, or one that is not of the model that the user means."""

import atexit
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

from katib_callbacks.metrics import format_value
from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.options import RecordingOptions
from katib_callbacks.recording.rows import RowBuffer, Values
from katib_callbacks.recording.selection import Selection
from katib_callbacks.reporting import termination
from katib_callbacks.settings import Runtime

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Doubts:
    """Doubts about the metrics of one callback.

    ``may_follow`` tells which an evaluation may still bring, ``may_be_old`` which are worth a word of their age.
    """

    options: RecordingOptions
    selection: Selection
    numbers: Numbers
    may_follow: Callable[[str], bool]
    may_be_old: Callable[[str], bool]

    def warn_early(self, had: Collection[str], is_awaited: Callable[[str], bool]) -> None:
        """Warn of a missing metric while the training can still be corrected for little, once a name."""
        missing = self.selection.missing(had)
        self.selection.has_all = not missing
        for name, seen in missing.items():
            if self.options.on_missing != "ignore" and not is_awaited(name) and not self._follows(name):
                warn_once = self.selection.voice.warn_once
                warn_once(f"missing {name}", "Metric %r has not appeared so far. %s", name, seen)

    def check_missing(self, had: Collection[str], pod: Runtime | None) -> str | None:
        """Warn of missing metrics at the training's end, or return what is to be raised.

        ``pod`` has the termination message. Of a metric that an evaluation may still bring the process warns at its
        end, unless :meth:`withdraw` is called.
        """
        missing = {} if self.options.on_missing == "ignore" else self.selection.missing(had)
        messages = {name: f"Metric {name!r} never appeared. {seen}" for name, seen in missing.items()}
        termination.withdraw(pod, had)
        for name, seen in missing.items():
            if not self._follows(name):
                termination.explain(pod, name, f"{name} never appeared; {seen[0].lower()}{seen[1:]}")
        if self.options.on_missing == "raise":
            return " ".join(messages.values()) or None
        following = {name: messages.pop(name) for name in missing if self._follows(name)}
        if following and not _unsaid:
            atexit.unregister(_say)  # once, however often
            atexit.register(_say)
        _unsaid.update({(os.getpid(), id(self), name): (message, pod) for name, message in following.items()})
        if messages:
            self.selection.voice.warn("%s", " ".join(messages.values()))
        return None

    def withdraw(self, names: Collection[str], pod: Runtime | None) -> None:
        """Take back what is said, or was to be said, of metrics that have come."""
        for name in names:
            _unsaid.pop((os.getpid(), id(self), name), None)
        termination.withdraw(pod, names)

    def check_model(self, rows: RowBuffer, *, is_kept_wanted: bool) -> None:
        """Warn where the model has no row, or one that lacks values, or has some of an earlier model."""
        warn = self.selection.voice.warn
        model, latest = rows.of_model(is_kept_wanted=is_kept_wanted), rows.latest
        is_kept_missing = is_kept_wanted and not (rows.kept and rows.kept.values)
        if not latest.values:
            pass
        elif is_kept_missing:
            which = "The model that was put back has no row of its own"
            if rows.kept is not None:
                which = "The model that is kept has no row of its own"
            elif self.options.report == "kept":
                which = "No model was kept"
            warn("%s in this training, so the final values are reported.", which)
        elif self.options.report == "best" and model is None:
            warn("%r never had a finite value, so the final values are reported.", self.options.monitor)
        reported = latest if model is None else model
        in_katib = self.selection.in_katib(latest.values)
        lacking = [katib_name for katib_name, name in in_katib if name not in reported.values]
        if lacking and not self.selection.is_everything:
            warn(
                "Not reported: %s. The row of the model that is reported has no value of it: log it with the others.",
                ", ".join(lacking),
            )
        if model is not None:
            if old := self._find_old(model, ", the model from "):
                warn(
                    "A value is older than the model that is reported: %s. Log or validate it as often as what "
                    "decides.",
                    old,
                )
        elif self.options.report != "best" and (old := self._find_old(latest, " of ")):
            warn(
                "A final value is older than the trained model: %s. Validate at the end of the training to report the "
                "model's own.",
                old,
            )

    def _find_old(self, found: Values, joint: str) -> str:
        """Return where the values are from that are older than the last row, and what they are."""
        old = []
        for katib_name, name in self.selection.in_katib(found.values):
            origin = found.origin(name)
            if origin == found.key or not (isinstance(origin, tuple) and isinstance(found.key, tuple)):
                continue
            number = self.numbers.number(name, found.values[name]) if self.may_be_old(name) else None
            if number is not None:
                (epoch, step, _), (model_epoch, model_step, _) = origin, found.key
                is_by_epoch = epoch is not None and epoch != model_epoch
                where = f"epoch {epoch}{joint}{model_epoch}" if is_by_epoch else f"step {step}{joint}{model_step}"
                old.append(f"{katib_name}={format_value(number)} is from {where}")
        return ", ".join(old)

    def _follows(self, name: str) -> bool:
        return self.options.after_training != "ignore" and self.may_follow(name)


_unsaid: dict[tuple[int, int, str], tuple[str, Runtime | None]] = {}
"""What is to be said at the process's end, by process, callback and metric, and whose termination message gets it."""


def _say() -> None:
    unsaid = {name: said for (pid, _, name), said in _unsaid.items() if pid == os.getpid()}
    messages = dict.fromkeys(message for (pid, *_), (message, _) in _unsaid.items() if pid == os.getpid())
    if messages:
        logger.warning("%s", " ".join(messages))
    for name, (message, pod) in unsaid.items():
        termination.explain(pod, name, message)
