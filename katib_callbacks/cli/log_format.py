"""The log lines of a server: for a person, or as JSON for a log collector."""

import atexit
import json
import logging
import os
import threading
import time
from typing import TextIO

from katib_callbacks.console import say

_STDERR = 2
_END_TIMEOUT_S = 5.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, what the call added, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def say_as_json(text: str) -> None:
    """Print what a person would be told, as a line of the log."""
    say(JsonFormatter().format(logging.makeLogRecord({"name": __name__, "levelname": "INFO", "msg": text})))


def configure_logging(kind: str, level: str) -> None:
    """Let log lines go to stderr, as ``text`` or ``json``; in JSON whatever else comes to stderr, too."""
    stream = _claim_stderr() if kind == "json" else None
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter() if kind == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(handlers=[handler], level=level.upper())
    logging.captureWarnings(kind == "json")


def _claim_stderr() -> TextIO:
    """Return the process's stderr, and log what others write to it from now on, line by line."""
    stream = os.fdopen(os.dup(_STDERR), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    read_end, write_end = os.pipe()
    os.dup2(write_end, _STDERR)
    os.close(write_end)
    thread = threading.Thread(target=_log_lines, args=(read_end,), name="katib-callbacks-stderr", daemon=True)
    thread.start()
    atexit.register(_end, stream, thread)
    return stream


def _log_lines(read_end: int) -> None:
    with os.fdopen(read_end, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if line.strip():
                logging.getLogger("stderr").warning("%s", line.rstrip())


def _end(stream: TextIO, thread: threading.Thread) -> None:
    """Give stderr back, so that what was written last is logged before the process ends."""
    os.dup2(stream.fileno(), _STDERR)  # the pipe has no writer any more, and the thread ends
    thread.join(_END_TIMEOUT_S)
