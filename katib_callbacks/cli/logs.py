"""``katib-callbacks logs``: the rows that a DB manager holds for a trial, as a table or as JSON lines."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from typing import Any

from katib_callbacks.cli.db_manager import DEFAULT_LISTEN_ADDRESS
from katib_callbacks.console import print_columns, printable
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError, RejectedError, UnavailableError
from katib_callbacks.metrics import StoredMetricLog, format_timestamp, name_problem, text_problem
from katib_callbacks.settings import DB_MANAGER_ADDRESS, DEFAULT_RUNTIME, LONGEST_S

DEFAULT_TIMEOUT_S = 30.0
"""Enough for a million rows. A host that does not answer is noticed after the 5 s that a connection may take."""

_HEADINGS = ("Time", "Metric", "Value")
_MAX_RICH_ROWS = 1_000  # it lays out every cell: 0.4 s for so many, 40 s for a hundred times more
_PIPE_WIDTH = 1_000_000  # where no terminal sets a limit, a table is as wide as its cells


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "logs",
        help="show what a DB manager holds for a trial",
        description="Show what a DB manager holds for a trial, ordered by time. TLS and token come from the variables "
        "of the reporter.",
    )
    parser.add_argument("trial", metavar="TRIAL", help="the trial's name")
    parser.add_argument("--metric", metavar="NAME", default="", help="only this metric")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per line, with name, value (a string) and timestamp"
    )
    parser.add_argument("--plot", action="store_true", help="draw each metric's curve in place of a table")
    parser.add_argument(
        "--address",
        "--db-manager",
        metavar="HOST:PORT",
        help=f"the DB manager's address (default: {DB_MANAGER_ADDRESS}, or else {DEFAULT_LISTEN_ADDRESS})",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for the answer (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the rows and print them."""
    problem = name_problem(arguments.trial)
    if problem:
        raise ConfigurationError(f"the trial's name {problem}")
    problem = text_problem(arguments.metric)
    if problem:
        raise ConfigurationError(f"--metric {problem}")
    source, address = "--address", arguments.address
    if address is None:
        source, address = DB_MANAGER_ADDRESS, DEFAULT_RUNTIME.variable(DB_MANAGER_ADDRESS) or DEFAULT_LISTEN_ADDRESS
    logs = read_rows(source, address, arguments.trial, arguments.metric, arguments.timeout)
    if not logs:
        rows = f"rows of metric {printable(arguments.metric)!r}" if arguments.metric else "rows"
        print(f"the DB manager at {address} holds no {rows} for trial {printable(arguments.trial)!r}", file=sys.stderr)
    elif arguments.json:
        for log in logs:
            row = {"name": log.name, "value": log.value, "timestamp": format_timestamp(log.timestamp)}
            print(json.dumps(row))
    elif arguments.plot:
        _plot(logs)
    else:
        _print_table([(format_timestamp(log.timestamp), printable(log.name), printable(log.value)) for log in logs])
    return 0


def read_rows(source: str, address: str, trial_name: str, metric_name: str, timeout_s: float) -> list[StoredMetricLog]:
    """Read a trial's rows from a DB manager; ``source`` is what an error about the address names."""
    import grpc  # noqa: PLC0415  --help does without

    from katib_callbacks.sinks.katib.endpoint import resolve_endpoint  # noqa: PLC0415  as grpc

    endpoint = resolve_endpoint(address, runtime=DEFAULT_RUNTIME, address_source=source)
    with closing(endpoint.open()) as stub:
        try:
            return stub.get(trial_name, metric_name=metric_name, timeout_s=timeout_s)
        except grpc.RpcError as error:
            raise _error(error, address) from error
        except KatibCallbacksError:  # a token that cannot be read is a ConfigurationError, and so a ValueError
            raise
        except ValueError as error:  # another server's timestamp
            raise KatibCallbacksError(f"the DB manager at {address} sent a row that cannot be read: {error}") from error


def _error(error: Exception, address: str) -> KatibCallbacksError:
    import grpc  # noqa: PLC0415  loaded by now

    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call) else None) or "no details"
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return UnavailableError(f"no answer from a DB manager at {address}: {details}", attempts=1)
    return RejectedError(f"the DB manager at {address} answered {code.name}: {details}", attempts=1)


def _plot(logs: Sequence[StoredMetricLog]) -> None:
    from katib_callbacks.pictures.sparkline import curves  # noqa: PLC0415  a table does without

    for line in curves([(log.name, log.value) for log in logs], shutil.get_terminal_size().columns):
        print(line)


def _print_table(rows: Sequence[tuple[str, str, str]]) -> None:
    if len(rows) > _MAX_RICH_ROWS or find_spec("rich") is None:
        print_columns([_HEADINGS, *rows])
        return
    from rich.console import Console  # noqa: PLC0415  optional
    from rich.table import Table  # noqa: PLC0415  optional
    from rich.text import Text  # noqa: PLC0415  optional

    table = Table(*_HEADINGS)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a name in square brackets is no markup
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return min(number, LONGEST_S)
