"""``katib-callbacks doctor``: where this process's metrics would go, why, and what would fail on the way."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from katib_callbacks._version import __version__
from katib_callbacks.console import printable

if TYPE_CHECKING:
    from katib_callbacks.cli.doctor.finding import Finding


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="find out where metrics would go, and what would fail",
        description="Find out where the metrics of a process with these variables would go, and what would fail on the "
        "way. The exit status is 0 if nothing would, and 1 if something would.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, as docs/troubleshooting.md has it")
    parser.add_argument(
        "--write", action="store_true", help="report a row under a trial's name of its own, read it back, and delete it"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and print what they find."""
    from katib_callbacks.cli.doctor import network, place, status_server, versions  # noqa: PLC0415  --help does without
    from katib_callbacks.cli.doctor.finding import PROBLEM, Surroundings  # noqa: PLC0415

    here = Surroundings(is_writing=arguments.write)
    rooms = (place, network, status_server, versions)
    findings = [each for room in rooms for check in room.CHECKS for each in check(here)]
    has_problem = any(each.status == PROBLEM for each in findings)
    if arguments.json:
        told = {
            "version": __version__,
            "status": PROBLEM if has_problem else "ok",
            "findings": [dataclasses.asdict(each) for each in findings],
        }
        print(json.dumps(told, indent=2))
    else:
        for each in findings:
            print(_line(each))
    return 1 if has_problem else 0


def _line(finding: "Finding") -> str:
    advice = f". {finding.advice[:1].upper()}{finding.advice[1:]}." if finding.advice else ""
    return printable(f"{finding.status:<8} {finding.check:<9} {finding.detail}{advice}")
