"""``katib-callbacks db-manager``: serve a database until Ctrl-C or SIGTERM."""

import argparse
import logging
import queue
import signal
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from katib_callbacks.cli.output import say

if TYPE_CHECKING:
    from argparse import _SubParsersAction

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:6789"
"""Katib's port, on this machine alone: the server authenticates nobody."""

DEFAULT_DB = "sqlite:///katib.db"

_SIGNAL_CHECK_INTERVAL_S = 1.0  # on Windows a waiting main thread runs signal handlers only between waits


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "db-manager",
        help="serve a database as Katib's DB manager does",
        description="Serve a database as Katib's DB manager does, until Ctrl-C or SIGTERM. Then calls in flight are "
        "finished; what was answered is on disk.",
    )
    parser.add_argument(
        "--listen",
        "--listen-address",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN_ADDRESS,
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--db", metavar="URL", default=DEFAULT_DB, help="the database; made if it does not exist (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415  needs the extra

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Put is safe in a signal handler, where setting an Event could wait for the very thread that it interrupts.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with DBManager(arguments.db, arguments.listen) as db_manager:
            say(f"DB manager: listening on {db_manager.address}, database {db_manager.db_url}")
            received = _wait_for(signals)
        say(f"DB manager: stopped by {signal.Signals(received).name}; every answered call is on disk")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _wait_for(signals: "queue.SimpleQueue[int]") -> int:
    while True:
        with suppress(queue.Empty):
            return signals.get(timeout=_SIGNAL_CHECK_INTERVAL_S)
