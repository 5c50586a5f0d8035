"""The logs of a local trial, read piece by piece as they grow."""

import codecs
import os
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.trials.files import TrialFiles

TAIL_BYTES = 128 << 10
"""How much of the end is shown first."""

PIECE_BYTES = 256 << 10
"""How much one answer holds."""

MESSAGE_BYTES = 4096


def log_files(files: TrialFiles) -> list[Path]:
    """Return a trial's logs that are not empty, and first that of its primary process in any case."""
    others = sorted(files.log.parent.glob(f"{files.log.stem}.*.log"))
    return [path for path in (files.log, *others) if path.is_file() and (path == files.log or path.stat().st_size)]


def read_log(files: TrialFiles, name: str, offset: int | None) -> dict[str, Any]:
    """Return a piece of a log from an offset on, and the offset of what follows.

    ``begins`` says that it does not go on where the last piece ended: it is the first one, or the log became shorter,
    as at a trial's next attempt.
    """
    path = next((path for path in log_files(files) if path.name == name), None)
    if path is None:
        raise ExperimentError(f"there is no log {name!r}")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begins = offset is None or offset > size
            start = max(0, size - TAIL_BYTES) if begins or offset is None else offset
            file.seek(start)
            data = file.read(PIECE_BYTES)
    except OSError as error:
        raise ExperimentError(f"the log cannot be read: {error}") from error
    if begins and start:  # the rest of a line
        rest, newline, lines = data.partition(b"\n")
        if newline:
            start, data = start + len(rest) + 1, lines
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    end = start + len(data) - len(decoder.getstate()[0])
    return {"text": text, "offset": end, "begins": begins, "is_cut": begins and start > 0, "has_more": end < size}


def termination_message(files: TrialFiles) -> str:
    """Return what a trial has written as its last words."""
    try:
        with files.termination_log.open("rb") as file:
            return file.read(MESSAGE_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
