"""``katib-callbacks db-manager``: serve a database until Ctrl-C or SIGTERM.

The same under the name and with the defaults of Katib's own DB manager, ``katib-db-manager``: see ``main``.
"""

import argparse
import ctypes
import logging
import math
import queue
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from katib_callbacks.cli.log_format import configure_logging, say_as_json
from katib_callbacks.cli.trial_listener import add_trial_arguments, trial_listener
from katib_callbacks.console import say
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError, MissingDependencyError
from katib_callbacks.settings import DEFAULT_RUNTIME

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:6789"
"""Katib's port, on this machine alone: the server authenticates nobody."""

KATIB_LISTEN_ADDRESS = "0.0.0.0:6789"
"""Where Katib's own manager listens (cmd/db-manager/v1beta1/main.go)."""

DEFAULT_DB = "sqlite:///katib.db"

DEFAULT_CONNECT_TIMEOUT = "60s"
"""As Katib's own manager has it."""

_M_ARENA_MAX = -8  # glibc, malloc.h
_ARENAS = 2

_SIGNAL_CHECK_INTERVAL_S = 1.0  # on Windows a waiting main thread runs signal handlers only between waits
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "db-manager",
        help="serve a database as Katib's DB manager does",
        description="Serve a database as Katib's DB manager does, until Ctrl-C or SIGTERM. Then calls in flight are "
        "finished; what was answered is on disk.",
    )
    add_arguments(parser, listen_address=DEFAULT_LISTEN_ADDRESS)


def add_arguments(parser: argparse.ArgumentParser, *, listen_address: str) -> None:
    """Add the options. Those that Katib's own manager has may begin with one hyphen, as Go's may."""
    parser.add_argument(
        "--listen",
        "--listen-address",
        "-listen-address",
        metavar="HOST:PORT",
        default=listen_address,
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--db",
        metavar="URL",
        help="the database: sqlite:///PATH, a file that is made if it does not exist, mysql://USER:PASSWORD@HOST/NAME "
        f"or postgresql://USER:PASSWORD@HOST/NAME (default: what DB_NAME and Katib's other variables say, else "
        f"{DEFAULT_DB})",
    )
    parser.add_argument(
        "--connect-timeout",
        "-connect-timeout",
        metavar="DURATION",
        type=duration,
        default=DEFAULT_CONNECT_TIMEOUT,
        help="how long to wait at the start for a database server (default: %(default)s)",
    )
    parser.add_argument(
        "--max-connections",
        metavar="N",
        type=_count,
        default=10,
        help="how many connections to the database there may be (default: %(default)s)",
    )
    parser.add_argument(
        "--max-calls",
        metavar="N",
        type=_count,
        default=512,
        help="how many calls may be worked on or wait; others are told to try again (default: %(default)s)",
    )
    parser.add_argument(
        "--retention-days",
        metavar="N",
        type=float,
        help="delete the rows of trials whose newest row is older (default: keep all)",
    )
    parser.add_argument(
        "--metrics-address",
        metavar="HOST:PORT",
        help="where Prometheus finds this server's own metrics (default: nowhere)",
    )
    parser.add_argument(
        "--keep-duplicates",
        action="store_true",
        help="store a batch that comes again a second time, as Katib's own manager does (default: once)",
    )
    add_trial_arguments(parser)
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning", help="(default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    configure_logging(arguments.log_format, arguments.log_level)
    if arguments.log_format != "json":
        return _serve(arguments, say)
    try:
        return _serve(arguments, say_as_json)
    except KatibCallbacksError as error:  # which would be printed as a text
        _logger.error("%s", error)  # noqa: TRY400  a traceback says no more
        from katib_callbacks.cli import EXIT_FAILED, EXIT_USAGE  # noqa: PLC0415  it imports this module

        is_usage = isinstance(error, (ConfigurationError, MissingDependencyError))
        return EXIT_USAGE if is_usage else EXIT_FAILED


def _serve(arguments: argparse.Namespace, tell: Callable[[str], None]) -> int:
    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415  needs the extra
    from katib_callbacks.db_manager.katib_environment import database_url, is_initialized  # noqa: PLC0415  as above

    _keep_few_arenas()
    # Put is safe in a signal handler, where setting an Event could wait for the very thread that it interrupts.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    db_manager = DBManager(
        arguments.db or database_url(DEFAULT_RUNTIME) or DEFAULT_DB,
        arguments.listen,
        max_connections=arguments.max_connections,
        max_calls=arguments.max_calls,
        connect_timeout_s=arguments.connect_timeout,
        is_initialized=is_initialized(DEFAULT_RUNTIME),
        keep_duplicates=arguments.keep_duplicates,
        retention_days=arguments.retention_days,
        metrics_address=arguments.metrics_address,
        trial_listener=trial_listener(arguments),
    )
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with db_manager:
            tell(f"DB manager: listening on {db_manager.address}, database {db_manager.db_url}")
            if db_manager.trial_address:
                tell(f"DB manager: listening for trials on {db_manager.trial_address}")
            if db_manager.metrics_address:
                tell(f"DB manager: metrics on http://{db_manager.metrics_address}/metrics")
            _logger.info("serving", extra={"address": db_manager.address, "database": db_manager.db_url})
            received = _wait_for(signals)
            _logger.info("stopping", extra={"signal": signal.Signals(received).name})
        tell(f"DB manager: stopped by {signal.Signals(received).name}; every answered call is on disk")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``katib-db-manager``, with the flags, variables and defaults of Katib's own."""
    from katib_callbacks.cli import run_command  # noqa: PLC0415  it imports this module

    parser = argparse.ArgumentParser(
        prog="katib-db-manager",
        description="Serve Katib's database in the place of its own DB manager. DB_NAME and the other variables of "
        "Katib's deployment name the database.",
    )
    add_arguments(parser, listen_address=KATIB_LISTEN_ADDRESS)
    parser.set_defaults(run=_run_as_katib, log_level="info")
    return run_command(parser, argv)


def _run_as_katib(arguments: argparse.Namespace) -> int:
    from katib_callbacks.db_manager.katib_environment import DB_NAME  # noqa: PLC0415  needs the extra

    if arguments.db is None and DEFAULT_RUNTIME.variable(DB_NAME) is None:
        raise ConfigurationError(f"{DB_NAME} is not set; write mysql or postgres, or name a database with --db")
    return run(arguments)


def _keep_few_arenas() -> None:
    """Let the C library's threads share their free memory: each would keep that of the largest request it has had."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def _wait_for(signals: "queue.SimpleQueue[int]") -> int:
    while True:
        with suppress(queue.Empty):
            return signals.get(timeout=_SIGNAL_CHECK_INTERVAL_S)


def duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it, such as ``1m30s``, or of a plain number."""
    if re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|us|ns|s))+", text, re.ASCII):
        return sum(
            float(number) * _UNITS_S[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(h|ms|m|us|ns|s)", text)
        )
    seconds = float(text)  # argparse reports a ValueError
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 60s")
    return seconds


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number
