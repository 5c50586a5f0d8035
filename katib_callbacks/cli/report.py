"""``katib-callbacks report``: report metrics of a trial from a shell script or another language."""

import argparse
import contextlib
import math
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from katib_callbacks.errors import ConfigurationError, MetricValueError
from katib_callbacks.metrics import MetricLog, parse_timestamp
from katib_callbacks.settings import DB_MANAGER_ADDRESS, DEFAULT_RUNTIME, DEFAULT_TIMEOUT_S, TIMEOUT_S, TRIAL_NAME

_LINE = re.compile(r"(?:(\d{4}-\S+)\s+)?([^\s=]+)\s*=\s*(\S+)\s*")


class _EndError(Exception):
    """SIGTERM has come while standard input was read."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="report metrics of this trial",
        description="Report metrics of this trial, as KatibReporter does: to the same sinks, with the same variables, "
        "once. The exit status is 0 only if they were delivered, or if this process is one of several and another one "
        "reports.",
    )
    parser.add_argument("metrics", metavar="NAME=VALUE", nargs="*", help="a metric and its number")
    parser.add_argument(
        "--stdin",
        action="store_true",
        help="read NAME=VALUE lines as well, which may begin with an RFC 3339 time, and report them when they end or "
        "SIGTERM comes; other lines are passed over",
    )
    parser.add_argument("--trial", metavar="NAME", help=f"the trial's name (default: {TRIAL_NAME})")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help=f"the DB manager's address (default: {DB_MANAGER_ADDRESS})"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help=f"how long to try (default: {TIMEOUT_S}, or else {DEFAULT_TIMEOUT_S:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Deliver what the command line and standard input have; exit status 1 where nothing was delivered."""
    from katib_callbacks.process_state import trial_state  # noqa: PLC0415  --help does without
    from katib_callbacks.reporting.ranks import process_rank  # noqa: PLC0415
    from katib_callbacks.reporting.reporter import KatibReporter  # noqa: PLC0415

    if not arguments.metrics and not arguments.stdin:
        raise ConfigurationError("there is nothing to report: give NAME=VALUE, or --stdin")
    if arguments.stdin and sys.stdin is None:
        raise ConfigurationError("--stdin: standard input is closed; lead the lines into it, as in: ./train | ...")
    rows = [_given(text) for text in arguments.metrics]
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"a metric is given twice: {', '.join(names)}")
    with (
        KatibReporter(arguments.address, trial_name=arguments.trial, timeout_s=arguments.timeout) as reporter,
        _sigterm_ends_reading() as state,
    ):
        if reporter.trial_name is not None:  # rows that are there may be this script's: they are not an attempt before
            trial_state(reporter.trial_name).has_begun = True
        if arguments.stdin:
            if hasattr(sys.stdin, "reconfigure"):  # other programs' output: a line that is no UTF-8 is passed over
                sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
            rows += _read(sys.stdin, state)
        if not rows:
            raise MetricValueError("no line of standard input was NAME=VALUE with a finite number")
        receipt = reporter.report_logs(rows)
    if receipt.skipped is None:
        print(f"reported {receipt.delivered} rows")
        return 0
    print(f"nothing was reported: {receipt.skipped}", file=sys.stderr)
    rank = process_rank(DEFAULT_RUNTIME.environ())
    return 0 if not rank.is_global_zero and rank.is_certain else 1


def _given(text: str) -> MetricLog:
    """Return the row of an argument; its name may have blanks and equals signs."""
    name, equals, value = text.rpartition("=")
    number = _number(value)
    if not equals or not name or number is None:
        raise ConfigurationError(f"{text!r} is not NAME=VALUE with a finite number")
    return MetricLog(name, number, DEFAULT_RUNTIME.now())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read(lines: Iterable[str], state: dict[str, Any]) -> list[MetricLog]:
    """Return the rows of all lines until they end, or until SIGTERM comes."""
    rows: list[MetricLog] = []
    with contextlib.suppress(_EndError):
        state["is_reading"] = True
        for line in lines:
            row = _row(line)
            if row is not None:
                rows.append(row)
    state["is_reading"] = False
    return rows


def _row(line: str) -> MetricLog | None:
    match = _LINE.fullmatch(line.strip())
    number = None if match is None else _number(match[3])
    if match is None or number is None:
        return None
    try:
        timestamp = DEFAULT_RUNTIME.now() if match[1] is None else parse_timestamp(match[1])
        return MetricLog(match[2], number, timestamp)
    except (MetricValueError, ValueError):
        return None


@contextlib.contextmanager
def _sigterm_ends_reading() -> Iterator[dict[str, Any]]:
    """Let SIGTERM end the reading of standard input, and leave a delivery alone: what there is goes out."""
    state: dict[str, Any] = {"is_reading": False}

    def end(*_: object) -> None:
        if state["is_reading"]:
            state["is_reading"] = False
            raise _EndError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield state
    finally:
        signal.signal(signal.SIGTERM, before)
