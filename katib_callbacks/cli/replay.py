"""``katib-callbacks replay``: deliver what lies in a spool, each row once."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from katib_callbacks.console import printable
from katib_callbacks.errors import KatibCallbacksError, SpoolError, UnavailableError
from katib_callbacks.settings import DB_MANAGER_ADDRESS, DEFAULT_RUNTIME, DEFAULT_TIMEOUT_S, TIMEOUT_S, seconds

if TYPE_CHECKING:
    from katib_callbacks.sinks.katib.sink import DBManagerSink
    from katib_callbacks.sinks.katib.spool import SpoolFile

MAX_HELD_FILES = 200
"""Files whose locks are held at once: a process may open 1,024 files by default."""

_BAR_CHARACTERS = 30


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "replay",
        help="deliver the rows that lie in a spool",
        description="Deliver the rows that lie in a spool directory, each once, and leave those that still fail. What "
        "another process is delivering is passed over. It restores rows, not trials: a trial that Katib has marked "
        "MetricsUnavailable stays so. TLS and token come from the variables of the reporter.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the spool directory")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help=f"the DB manager's address (default: {DB_MANAGER_ADDRESS}, or else Katib's own)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help=f"how long to try, for each file (default: {TIMEOUT_S}, or else {DEFAULT_TIMEOUT_S:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay a directory; exit status 1 if anything is left that needs a person."""
    from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  --help does without
    from katib_callbacks.sinks.katib.endpoint import resolve_endpoint  # noqa: PLC0415
    from katib_callbacks.sinks.katib.sink import DBManagerSink  # noqa: PLC0415

    endpoint = resolve_endpoint(arguments.address, runtime=DEFAULT_RUNTIME, address_source="--address")
    timeout_s = seconds("--timeout", arguments.timeout, TIMEOUT_S, DEFAULT_TIMEOUT_S, DEFAULT_RUNTIME)
    paths = spool.list_files(arguments.directory)
    sink = DBManagerSink(endpoint)
    replay = _Replay(sink, timeout_s, len(paths))
    try:
        for start in range(0, len(paths), MAX_HELD_FILES):
            replay.deliver(paths[start : start + MAX_HELD_FILES])
    finally:
        sink.close()
        replay.bar.clear()
    for problem in replay.problems:
        print(f"left: {printable(problem)}")
    print(
        f"{arguments.directory}: {replay.rows:,} rows of {replay.files:,} files are stored by {endpoint.address}; "
        f"{len(replay.problems):,} files are left, {replay.busy:,} are being delivered"
    )
    return 1 if replay.problems else 0


class _Replay:
    """One run over a directory: what was delivered, emptied, busy elsewhere, and a line for each file that is left."""

    def __init__(self, sink: "DBManagerSink", timeout_s: float, total: int) -> None:
        self.rows = self.files = self.busy = 0
        self.problems: list[str] = []
        self.bar = _Bar(total)
        self._sink = sink
        self._timeout_s = timeout_s
        self._is_stopped = False

    def deliver(self, paths: Sequence[Path]) -> None:
        """Take as many files as possible, then deliver them in order."""
        with ExitStack() as held:
            files = list(self._hold(paths, held))
            # Once the first answer has come, waiting for late commits is the same wait for all that are held.
            answered_at_s: float | None = None
            for file in files:
                has_answered = self._deliver(file, 0.0 if answered_at_s is None else time.monotonic() - answered_at_s)
                if has_answered and answered_at_s is None:
                    answered_at_s = time.monotonic()
                self.bar.advance(self.rows)

    def _hold(self, paths: Sequence[Path], held: ExitStack) -> "Iterator[SpoolFile]":
        from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  --help does without

        for path in paths:
            try:
                file = spool.hold(path)
            except SpoolError as error:
                self.problems.append(str(error))
                continue
            if file is None:
                self.busy += 1
            else:
                held.callback(file.release)
                yield file

    def _deliver(self, file: "SpoolFile", abandoned_s: float) -> bool:
        """Deliver one file; return whether the DB manager answered."""
        from katib_callbacks.sinks.katib.spool_format import DamagedError  # noqa: PLC0415  --help does without

        if self._is_stopped:
            self.problems.append(f"{file.path}: not tried")
            return False
        try:
            spooled = file.read()
            delivered = self.rows
            outcome = self._sink.resend(
                spooled.trial_name,
                spooled.logs,
                deadline_s=self._timeout_s,
                abandoned_s=abandoned_s,
                on_progress=lambda rows: self.bar.show(delivered + rows),
            )
            self.rows += outcome.delivered
            file.remove()
        except SpoolError as error:  # it names the file
            self.problems.append(str(error))
            if isinstance(error, DamagedError):
                file.set_aside(error)
            return False
        except Exception as error:  # noqa: BLE001  one file must not keep the others from being delivered
            self._is_stopped = isinstance(error, UnavailableError) and not self._sink.answers()
            text = str(error) if isinstance(error, KatibCallbacksError) else f"{type(error).__name__}: {error}"
            self.problems.append(f"{file.path}: {text}")
            return isinstance(error, KatibCallbacksError) and not self._is_stopped
        self.files += 1
        return True


class _Bar:
    """A line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._is_shown = sys.stderr.isatty() and total > 0

    def advance(self, rows: int) -> None:
        """Count one more file."""
        self._done += 1
        self.show(rows)

    def show(self, rows: int) -> None:
        """Draw, with the number of rows so far."""
        if self._is_shown:
            filled = _BAR_CHARACTERS * self._done // self._total
            bar = "#" * filled + "." * (_BAR_CHARACTERS - filled)
            print(f"\r[{bar}] {self._done}/{self._total} files, {rows:,} rows", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """End the line."""
        if self._is_shown:
            print(file=sys.stderr)
