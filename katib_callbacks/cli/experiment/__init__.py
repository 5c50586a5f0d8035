"""``katib-callbacks experiment``: run experiments on this machine, and see what became of them."""

import argparse
from pathlib import Path
from typing import Any


def add_home(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a home."""
    parser.add_argument(
        "--home",
        metavar="DIR",
        type=Path,
        default="katib-local",
        help="the folder of the state and of the trials (default: %(default)s)",
    )


def add_parser(subparsers: Any) -> None:
    """Add the subcommand and its own."""
    parser = subparsers.add_parser(
        "experiment",
        help="run Katib experiments on this machine",
        description="Run Katib experiments on this machine: trials are processes, state lies in one SQLite file.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(commands, "run", "run an experiment from a YAML file, to its end")
    source = run.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "file", metavar="FILE.yaml", nargs="?", help="a Katib Experiment, or an OptimizationJob; - reads it"
    )
    source.add_argument("-f", "--filename", metavar="FILE.yaml", help="the same, as kubectl has it")
    run.add_argument("--name", metavar="NAME", help="which experiment, where the file holds several")
    run.add_argument("--workdir", metavar="DIR", type=Path, help="all trials work there (default: a folder for each)")
    run.add_argument("--gpus-per-trial", metavar="N", type=int, help="share out the GPUs (default: as the file says)")

    resume = _named(commands, "resume", "go on with an experiment that was stopped or killed")
    edit = _named(commands, "edit", "change the budget of an experiment, also of one that runs")
    for option in ("max-trial-count", "parallel-trial-count", "max-failed-trial-count"):
        resume.add_argument(f"--{option}", metavar="N", type=int, help="change the budget before")
        edit.add_argument(f"--{option}", metavar="N", type=int, help="the new count")
    _named(commands, "stop", "end the trials of an experiment that another process runs; resume goes on")

    listing = _command(commands, "list", "list experiments")
    status = _named(commands, "status", "show an experiment, its trials and the best hyperparameters")
    for command in (listing, status):
        command.add_argument("--json", action="store_true", help="as JSON, in the form of the API's objects")

    _named(commands, "watch", "show an experiment that another process runs, live, until it is over")

    logs = _named(commands, "logs", "show what a trial has written")
    logs.add_argument("trial", metavar="TRIAL", nargs="?", help="the trial (default: the one that began last)")
    logs.add_argument("--plot", action="store_true", help="draw the curves of its metrics instead")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the trial is over")

    export = _named(commands, "export", "write the trials of an experiment into a file, for a table or a notebook")
    export.add_argument("--rows", action="store_true", help="a row for each value (default: for each trial)")
    plot = _named(commands, "plot", "draw an experiment into a file that can be opened anywhere")
    plot.add_argument(
        "--kind",
        metavar="KIND",
        action="append",
        help="objective, curves, parallel, slices, importances or contour; may be given again (default: all)",
    )
    plot.add_argument("--metric", metavar="NAME", help="that of the curves (default: the objective)")
    for command, endings in ((export, ".csv, .json or .parquet"), (plot, ".html or .png")):
        command.add_argument(
            "-o", "--output", metavar="FILE", type=Path, required=True, help=f"the file, which ends in {endings}"
        )

    _named(commands, "delete", "delete an experiment, its trials, their rows and folders")


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    add_home(parser)
    parser.set_defaults(run=_run, command=name)
    return parser


def _named(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command that takes the name of an experiment."""
    parser = _command(commands, name, text)
    parser.add_argument("name", metavar="NAME", help="the experiment")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from katib_callbacks.cli.experiment.commands import COMMANDS  # noqa: PLC0415  --help does without

    return COMMANDS[arguments.command](arguments)
