"""``katib-callbacks experiment``: run experiments on this machine, and see what became of them."""

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from katib_callbacks.console import print_columns, printable, say
from katib_callbacks.errors import ExperimentError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from katib_callbacks.local.running.runner import Runner
    from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow

DEFAULT_HOME = "katib-local"

STOPPED = "Stopped"
"""The state that is shown of an experiment that is not over and that no process runs."""

LINES_OF_A_FAILURE = 10

EXIT_FAILED = 1
EXIT_STOPPED = 130
"""The experiment was stopped by Ctrl-C or SIGTERM, and can be resumed."""


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its own."""
    parser = subparsers.add_parser(
        "experiment",
        help="run Katib experiments on this machine",
        description="Run Katib experiments on this machine: trials are processes, state lies in one SQLite file.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "run an experiment from a YAML file, to its end")
    run.add_argument("file", metavar="FILE.yaml", help="a Katib Experiment, or an OptimizationJob")
    run.add_argument("--name", metavar="NAME", help="which experiment, where the file holds several")
    run.add_argument("--workdir", metavar="DIR", type=Path, help="all trials work there (default: a folder for each)")
    run.add_argument("--gpus-per-trial", metavar="N", type=int, help="share out the GPUs (default: as the file says)")

    resume = _command(commands, "resume", _resume, "go on with an experiment that was stopped or killed")
    resume.add_argument("name", metavar="NAME", help="the experiment")
    edit = _command(commands, "edit", _edit, "change the budget of an experiment, also of one that runs")
    edit.add_argument("name", metavar="NAME", help="the experiment")
    for option in ("max-trial-count", "parallel-trial-count", "max-failed-trial-count"):
        resume.add_argument(f"--{option}", metavar="N", type=int, help="change the budget before")
        edit.add_argument(f"--{option}", metavar="N", type=int, help="the new count")

    stop = _command(
        commands, "stop", _stop, "end the trials of an experiment that another process runs; resume goes on"
    )
    stop.add_argument("name", metavar="NAME", help="the experiment")

    listing = _command(commands, "list", _list, "list experiments")
    status = _command(commands, "status", _status, "show an experiment, its trials and the best hyperparameters")
    status.add_argument("name", metavar="NAME", help="the experiment")
    for command in (listing, status):
        command.add_argument("--json", action="store_true", help="as JSON, in the form of the API's objects")

    logs = _command(commands, "logs", _logs, "show what a trial has written")
    logs.add_argument("name", metavar="NAME", help="the experiment")
    logs.add_argument("trial", metavar="TRIAL", nargs="?", help="the trial (default: the one that began last)")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the trial is over")

    delete = _command(commands, "delete", _delete, "delete an experiment, its trials, their rows and folders")
    delete.add_argument("name", metavar="NAME", help="the experiment")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--home",
        metavar="DIR",
        default=DEFAULT_HOME,
        help="the folder of the state and of the trials (default: %(default)s)",
    )
    parser.set_defaults(run=run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.api.manifest import read_file  # noqa: PLC0415  as above
    from katib_callbacks.local.running import runner  # noqa: PLC0415  --help does without

    home = Path(arguments.home)
    name, notes = runner.create(
        home,
        read_file(arguments.file, arguments.name),
        folder=Path.cwd(),
        workdir=arguments.workdir,
        gpus_per_trial=arguments.gpus_per_trial,
    )
    if notes:
        print(f"without effect on one machine: {', '.join(notes)}", file=sys.stderr)
    return _run_stored(home, name)


def _counts(arguments: argparse.Namespace) -> dict[str, int | None]:
    names = ("max_trial_count", "parallel_trial_count", "max_failed_trial_count")
    return {name: getattr(arguments, name) for name in names}


def _edit(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.state.budget import edit_budget  # noqa: PLC0415  --help does without

    with _opened(arguments.home) as store:
        is_restarted = edit_budget(store, arguments.name, **_counts(arguments))
    if is_restarted:
        say(f"go on with: katib-callbacks experiment resume {arguments.name} --home {arguments.home}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.running import runner  # noqa: PLC0415  --help does without

    with _opened(arguments.home):  # says that there is no home
        was_run = runner.stop(Path(arguments.home), arguments.name)
    if was_run:
        say(f"stopped; go on with: katib-callbacks experiment resume {arguments.name} --home {arguments.home}")
    else:
        say(f"no process runs experiment {arguments.name}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.state.budget import edit_budget  # noqa: PLC0415  --help does without

    counts = _counts(arguments)
    with _opened(arguments.home) as store:
        store.experiment(arguments.name)
        if any(count is not None for count in counts.values()):
            edit_budget(store, arguments.name, **counts)
    return _run_stored(Path(arguments.home), arguments.name)


def _run_stored(home: Path, name: str) -> int:
    from katib_callbacks.cli.experiment_progress import progress  # noqa: PLC0415  --help does without
    from katib_callbacks.local.running.runner import Runner  # noqa: PLC0415  as above
    from katib_callbacks.local.state import states  # noqa: PLC0415  as above

    with _opened(str(home)) as store, progress(store.experiment(name), store.trials(name)) as shown:
        runner = Runner(home, name, shown.update)
        with _stopping(runner):
            runner.run()
    with _opened(str(home)) as store:
        row = store.experiment(name)
        _print_result(store, row)
        is_stopped = row.state not in states.FINAL_EXPERIMENT_STATES or bool(store.unfinished_trials(name))
        if row.state == states.FAILED:
            _print_first_failure(home, store, name)
    if is_stopped:
        say(f"stopped; go on with: katib-callbacks experiment resume {name} --home {home}")
        return EXIT_STOPPED
    return 0 if row.state == states.SUCCEEDED else EXIT_FAILED


@contextmanager
def _stopping(runner: "Runner") -> Iterator[None]:
    """End the experiment at the first Ctrl-C or SIGTERM, so that it can be resumed."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, previous[signal.Signals(number)])  # the second one does what it always does
        runner.request_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _list(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.state import states  # noqa: PLC0415  --help does without
    from katib_callbacks.local.trainer.objects import stored_object  # noqa: PLC0415  as above

    with _opened(arguments.home) as store:
        rows = store.experiments()
        trials = [store.trials(row.name) for row in rows]
    if arguments.json:
        for row, own in zip(rows, trials, strict=True):
            print(json.dumps(stored_object(row, own)))
        return 0
    table = [("Experiment", "State", "Trials", "Succeeded", "Failed", "Created")]
    for row, own in zip(rows, trials, strict=True):
        found = Counter(trial.state for trial in own)
        failed = found[states.FAILED] + found[states.METRICS_UNAVAILABLE]
        counts = (str(len(own)), str(found[states.SUCCEEDED]), str(failed))
        table.append((row.name, _state(Path(arguments.home), row, own), *counts, _time(row.created_s)))
    print_columns(table)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.trainer.objects import stored_object, stored_trial  # noqa: PLC0415  --help does without

    with _opened(arguments.home) as store:
        row = store.experiment(arguments.name)
        trials = store.trials(row.name)
        if arguments.json:
            objects = [stored_trial(row, trial, Path(arguments.home)) for trial in trials]
            print(json.dumps({"experiment": stored_object(row, trials), "trials": objects}))
            return 0
        table = [("Trial", "State", "Objective", "Parameters", "Message")]
        for trial in trials:
            parameters = " ".join(f"{name}={value}" for name, value in trial.assignments.items())
            value = "" if trial.value is None else f"{trial.value:g}"
            message = str(trial.conditions[-1]["message"])
            table.append((trial.name, trial.state, value, printable(parameters), printable(message)))
        print_columns(table)
        _print_result(store, row)
    if _state(Path(arguments.home), row, trials) == STOPPED:
        say(f"no process runs it; go on with: katib-callbacks experiment resume {row.name} --home {arguments.home}")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local import LocalKatibClient  # noqa: PLC0415  --help does without
    from katib_callbacks.local.trials.files import TrialFiles  # noqa: PLC0415  as above

    with _opened(arguments.home) as store:
        store.experiment(arguments.name)
        trials = [trial for trial in store.trials(arguments.name) if trial.started_s is not None]
    if not trials:
        raise ExperimentError(f"experiment {arguments.name!r} has no trial that has begun")
    name = arguments.trial or max(trials, key=lambda trial: trial.started_s or 0).name
    print(f"{name} works in {TrialFiles(Path(arguments.home), arguments.name, name).folder}", file=sys.stderr)
    client = LocalKatibClient(home=arguments.home)
    for line in client.get_job_logs(arguments.name, name, follow=arguments.follow):
        print(printable(line.replace("\t", "    ")), flush=arguments.follow)
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    from katib_callbacks.local.running import runner  # noqa: PLC0415  --help does without

    with _opened(arguments.home):
        runner.delete(Path(arguments.home), arguments.name)
    say(f"experiment {arguments.name} is deleted")
    return 0


@contextmanager
def _opened(home: str) -> "Iterator[ExperimentStore]":
    """Open the state of a home that there is: a misspelled one is not made."""
    from katib_callbacks.local.running.runner import database  # noqa: PLC0415  --help does without
    from katib_callbacks.local.state.store import ExperimentStore  # noqa: PLC0415  as above

    path = database(Path(home))
    if not path.exists():
        raise ExperimentError(f"{home} holds no experiments (no {path.name}); --home names another folder")
    with ExperimentStore(path) as store:
        yield store


def _print_result(store: "ExperimentStore", row: "ExperimentRow") -> None:
    from katib_callbacks.local.state.status import best_trial  # noqa: PLC0415  as above
    from katib_callbacks.local.trainer.objects import verdict  # noqa: PLC0415  --help does without

    trials = store.trials(row.name)
    best = best_trial(row.manifest, trials)
    state, message = verdict(row, trials)
    say(f"\nexperiment {row.name} is {state}: {message}")
    if best is None:
        return
    say(f"best trial {best.name}")
    objective = row.manifest["spec"]["objective"]["objectiveMetricName"]
    say(f"  {printable(objective)}: {best.value!r}")
    for name, value in best.assignments.items():
        say(f"  {printable(name)} = {printable(value)}")


def _state(home: Path, row: "ExperimentRow", trials: "list[TrialRow]") -> str:
    """Return an experiment's state; ``Stopped`` if it is not over and no process runs it."""
    from katib_callbacks.local.running import runner  # noqa: PLC0415  --help does without
    from katib_callbacks.local.state import states  # noqa: PLC0415  --help does without
    from katib_callbacks.local.trainer.objects import verdict  # noqa: PLC0415  as above

    is_left = row.state not in states.FINAL_EXPERIMENT_STATES and not runner.is_run(home, row.name)
    return STOPPED if is_left else verdict(row, trials)[0]


def _print_first_failure(home: Path, store: "ExperimentStore", name: str) -> None:
    from katib_callbacks.local.state import states  # noqa: PLC0415  --help does without
    from katib_callbacks.local.trials.files import TrialFiles  # noqa: PLC0415  as above
    from katib_callbacks.local.trials.process import last_lines  # noqa: PLC0415  as above

    failed = (states.FAILED, states.METRICS_UNAVAILABLE)
    trial = next((trial for trial in store.trials(name) if trial.state in failed), None)
    if trial is None:
        return
    say(f"trial {trial.name}: {printable(str(trial.conditions[-1]['message']))}")
    for line in last_lines(TrialFiles(home, name, trial.name).log, LINES_OF_A_FAILURE):
        say(f"  {printable(line)}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
