"""The command ``katib-callbacks``: each subcommand's module parses here and imports its work only when it runs.

Foreseen errors are one line on stderr and exit status 2 (it was called wrongly) or 1 (it could not be done).
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from katib_callbacks._version import __version__
from katib_callbacks.console import abandon_stdout
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError, MetricValueError, MissingDependencyError

SUBCOMMANDS = ("api_server", "db_manager", "doctor", "experiment", "logs", "replay", "report", "ui", "yaml")
"""Modules of this package. Each has ``add_parser(subparsers)``, which sets ``run``: the arguments -> exit status."""

EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own
EXIT_INTERRUPTED = 130  # what shells make of SIGINT: 128 + 2
EXIT_BROKEN_PIPE = 141  # and of SIGPIPE: 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments that follow its name, and return the exit status."""
    return run_command(_parser(), argv)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Run what a parser's arguments set as ``run``, and make an exit status of what it raises."""
    for stream in (sys.stdout, sys.stderr):  # a metric's name may have what this terminal's encoding has not
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except (ConfigurationError, MissingDependencyError, MetricValueError) as error:
        return _fail(parser, error, EXIT_USAGE)
    except KatibCallbacksError as error:
        return _fail(parser, error, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        abandon_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a full disk, most likely; every other foreign error is mapped below us
        abandon_stdout()
        return _fail(parser, error, EXIT_FAILED)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="katib-callbacks", description="Deliver the metrics of a Katib trial, and see what was delivered."
    )
    parser.add_argument("--version", action="version", version=f"katib-callbacks {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in SUBCOMMANDS:
        import_module(f"{__name__}.{name}").add_parser(subparsers)
    return parser


def _fail(parser: argparse.ArgumentParser, error: Exception, status: int) -> int:
    line = " ".join(str(error).split())
    print(f"{parser.prog}: error: {line}", file=sys.stderr)
    return status
