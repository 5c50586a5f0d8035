"""Doubts: warnings of values that are not those of the model that the user means."""

from collections.abc import Callable, Collection

from katib_callbacks.metrics import format_value
from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.options import RecordingOptions
from katib_callbacks.recording.rows import Position, RowBuffer, older
from katib_callbacks.recording.selection import Selection
from katib_callbacks.recording.voice import Voice


def warn_of_another_model(options: RecordingOptions, rows: RowBuffer, voice: Voice, *, is_kept_wanted: bool) -> bool:
    """Warn where the model that is asked for has no row; return whether the latest values are reported."""
    if is_kept_wanted and rows.has_kept:
        return False
    if is_kept_wanted:
        is_kept_asked = options.report == "kept"
        which = "No model was kept" if is_kept_asked else "The model that was put back has no row of its own"
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


def warn_of_old_values(
    rows: RowBuffer, selection: Selection, numbers: Numbers, voice: Voice, may_be_old: Callable[[str], bool]
) -> None:
    """Warn of the latest values that are older than the trained model, with where each is from."""
    old = []
    for katib_name, name in selection.in_katib(rows.latest):
        since = rows.since[name]
        if since == rows.last or not (isinstance(since, Position) and isinstance(rows.last, Position)):
            continue
        number = numbers.number(name, rows.latest[name]) if may_be_old(name) else None
        if number is not None:
            old.append(f"{katib_name}={format_value(number)} is from {older(since, rows.last)}")
    if old:
        voice.warn(
            "A final value is older than the trained model: %s. Validate at the end of the training to report the "
            "model's own.",
            ", ".join(old),
        )
