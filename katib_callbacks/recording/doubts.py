"""Doubts: warnings of values that are not those of the model that the user means."""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from katib_callbacks.metrics import format_value
from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.options import RecordingOptions
from katib_callbacks.recording.rows import ModelRow, Position, RowBuffer, older
from katib_callbacks.recording.selection import Selection
from katib_callbacks.recording.voice import Voice


def warn_of_another_model(options: RecordingOptions, rows: RowBuffer, voice: Voice, *, is_kept_wanted: bool) -> bool:
    """Warn where the model that is asked for has no row; return whether the latest values are reported."""
    if is_kept_wanted and rows.has_kept:
        return False
    if is_kept_wanted:
        is_kept_asked = options.report == "kept"
        which = "No model was kept" if is_kept_asked else "The model that was put back has no row of its own"
        which = "The model that is kept has no row of its own" if rows.is_kept_unknown else which
        voice.warn("%s in this training, so the final values are reported.", which)
    elif options.report == "best" and not rows.has_best:
        voice.warn("%r never had a finite value, so the final values are reported.", options.monitor)
    return options.report in {"final", "kept"}


def warn_of_lacking_values(reported: Collection[str], rows: RowBuffer, selection: Selection, voice: Voice) -> None:
    """Warn of metrics that were asked for and have no value in the one row that is reported, only in others.

    Args:
        reported: The framework's names in that row.
        rows: Of the training.
        selection: The names.
        voice: Logs.
    """
    lacking = [katib_name for katib_name, name in selection.in_katib(rows.latest) if name not in reported]
    if lacking and not selection.is_everything:
        voice.warn(
            "Not reported: %s. The row of the model that is reported has no value of it: log it with the others.",
            ", ".join(lacking),
        )


@dataclass(frozen=True)
class OldValues:
    """Warns of values that are older than the model that they are reported for, with where both are from."""

    selection: Selection
    numbers: Numbers
    voice: Voice
    may_be_old: Callable[[str], bool]

    def warn_of_latest(self, rows: RowBuffer) -> None:
        """Warn where the training went on after the latest value of a metric."""
        old = self._find(rows.latest, rows.since, rows.last, " of ")
        if old:
            self.voice.warn(
                "A final value is older than the trained model: %s. Validate at the end of the training to report the "
                "model's own.",
                old,
            )

    def warn_of_model(self, model: ModelRow) -> None:
        """Warn where the row of the best or kept model has values of an earlier one."""
        old = self._find(model.values, model.since, model.key, ", the model from ")
        if old:
            self.voice.warn(
                "A value is older than the model that is reported: %s. Log or validate it as often as what decides.",
                old,
            )

    def _find(self, values: Mapping[str, Any], since: Mapping[str, Hashable], key: Hashable, joint: str) -> str:
        old = []
        for katib_name, name in self.selection.in_katib(values):
            position = since.get(name, key)
            if position == key or not (isinstance(position, Position) and isinstance(key, Position)):
                continue
            number = self.numbers.number(name, values[name]) if self.may_be_old(name) else None
            if number is not None:
                where, of_model = older(position, key)
                old.append(f"{katib_name}={format_value(number)} is from {where}{joint}{of_model}")
        return ", ".join(old)
