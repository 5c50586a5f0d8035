"""The commands of ``katib-callbacks experiment``: each takes its arguments and returns the exit status."""

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from katib_callbacks.cli.experiment import pictures
from katib_callbacks.cli.experiment.home import opened
from katib_callbacks.cli.experiment.progress import parameters, progress, watch
from katib_callbacks.console import print_columns, printable, say
from katib_callbacks.errors import ExperimentError
from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.api.manifest import read_file
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import Runner
from katib_callbacks.local.state import states
from katib_callbacks.local.state.budget import edit_budget
from katib_callbacks.local.state.status import best_trial
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow
from katib_callbacks.local.trainer.objects import stored_object, stored_trial, verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.process import last_lines

STOPPED = "Stopped"
"""The state that is shown of an experiment that is not over and that no process runs."""

LINES_OF_A_FAILURE = 10

EXIT_FAILED = 1
EXIT_STOPPED = 130
"""The experiment was stopped by Ctrl-C or SIGTERM, and can be resumed."""

_FAILED = (states.FAILED, states.METRICS_UNAVAILABLE)


def _run(arguments: argparse.Namespace) -> int:
    name, notes = runner.create(
        arguments.home,
        read_file(arguments.filename or arguments.file, arguments.name),
        folder=Path.cwd(),
        workdir=arguments.workdir,
        gpus_per_trial=arguments.gpus_per_trial,
    )
    if notes:
        print(f"without effect on one machine: {', '.join(notes)}", file=sys.stderr)
    return _run_stored(arguments.home, name)


def _counts(arguments: argparse.Namespace) -> dict[str, int | None]:
    names = ("max_trial_count", "parallel_trial_count", "max_failed_trial_count")
    return {name: getattr(arguments, name) for name in names}


def _edit(arguments: argparse.Namespace) -> int:
    with opened(arguments.home) as store:
        is_restarted = edit_budget(store, arguments.name, **_counts(arguments))
    if is_restarted:
        say(_how_to_go_on(arguments.home, arguments.name))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    with opened(arguments.home):  # says that there is no home
        was_run = runner.stop(arguments.home, arguments.name)
    go_on = _how_to_go_on(arguments.home, arguments.name)
    say(f"stopped; {go_on}" if was_run else f"no process runs experiment {arguments.name}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    counts = _counts(arguments)
    with opened(arguments.home) as store:
        store.experiment(arguments.name)
        if any(count is not None for count in counts.values()):
            edit_budget(store, arguments.name, **counts)
    return _run_stored(arguments.home, arguments.name)


def _run_stored(home: Path, name: str) -> int:
    with progress(home, name) as take_event:
        running = Runner(home, name, take_event)
        with _stopping(running):
            running.run()
    with opened(home) as store:
        row = store.experiment(name)
        _print_result(store, row)
        is_stopped = not store.is_over(name)
        if row.state == states.FAILED:
            _print_first_failure(home, store, name)
    if is_stopped:
        say(f"stopped; {_how_to_go_on(home, name)}")
        return EXIT_STOPPED
    return 0 if row.state == states.SUCCEEDED else EXIT_FAILED


@contextmanager
def _stopping(running: Runner) -> Iterator[None]:
    """End the experiment at the first Ctrl-C or SIGTERM, so that it can be resumed."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, previous[signal.Signals(number)])  # the second one does what it always does
        running.request_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _list(arguments: argparse.Namespace) -> int:
    with opened(arguments.home) as store:
        experiments = [(row, store.trials(row.name)) for row in store.experiments()]
    if arguments.json:
        for row, trials in experiments:
            print(json.dumps(stored_object(row, trials)))
        return 0
    table: list[tuple[str, ...]] = [("Experiment", "State", "Trials", "Succeeded", "Failed", "Created")]
    for row, trials in experiments:
        found = Counter(trial.state for trial in trials)
        counts = (len(trials), found[states.SUCCEEDED], sum(found[state] for state in _FAILED))
        created = datetime.fromtimestamp(row.created_s, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.append((row.name, _state(arguments.home, row, trials), *map(str, counts), created))
    print_columns(table)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    with opened(arguments.home) as store:
        row = store.experiment(arguments.name)
        trials = store.trials(row.name)
        if arguments.json:
            objects = [stored_trial(row, trial, arguments.home) for trial in trials]
            print(json.dumps({"experiment": stored_object(row, trials), "trials": objects}))
            return 0
        table = [("Trial", "State", "Objective", "Parameters", "Message")]
        for trial in trials:
            value = "" if trial.value is None else f"{trial.value:g}"
            message = printable(str(trial.conditions[-1]["message"]))
            table.append((trial.name, trial.state, value, parameters(trial), message))
        print_columns(table)
        _print_result(store, row)
    if _state(arguments.home, row, trials) == STOPPED:
        say(f"no process runs it; {_how_to_go_on(arguments.home, row.name)}")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    with opened(arguments.home) as store:
        store.experiment(arguments.name)
        trials = [trial for trial in store.trials(arguments.name) if trial.started_s is not None]
    if not trials:
        raise ExperimentError(f"experiment {arguments.name!r} has no trial that has begun")
    name = arguments.trial or max(trials, key=lambda trial: trial.started_s or 0).name
    if arguments.plot:
        return pictures.plot_trial(arguments, name)
    print(f"{name} works in {TrialFiles(arguments.home, arguments.name, name).folder}", file=sys.stderr)
    client = LocalKatibClient(home=arguments.home)
    for line in client.get_job_logs(arguments.name, name, follow=arguments.follow):
        print(printable(line.replace("\t", "    ")), flush=arguments.follow)
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    snapshot = watch(arguments.home, arguments.name)
    with opened(arguments.home) as store:
        row = store.experiment(arguments.name)
        _print_result(store, row)
    if snapshot.is_over:
        return 0 if row.state == states.SUCCEEDED else EXIT_FAILED
    say(f"no process runs it; {_how_to_go_on(arguments.home, row.name)}")
    return EXIT_STOPPED


def _delete(arguments: argparse.Namespace) -> int:
    with opened(arguments.home):
        runner.delete(arguments.home, arguments.name)
    say(f"experiment {arguments.name} is deleted")
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "resume": _resume,
    "edit": _edit,
    "stop": _stop,
    "list": _list,
    "status": _status,
    "logs": _logs,
    "watch": _watch,
    "delete": _delete,
    "export": pictures.export,
    "plot": pictures.plot,
}


def _how_to_go_on(home: Path, name: str) -> str:
    return f"go on with: katib-callbacks experiment resume {name} --home {home}"


def _print_result(store: ExperimentStore, row: ExperimentRow) -> None:
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


def _state(home: Path, row: ExperimentRow, trials: Sequence[TrialRow]) -> str:
    """Return an experiment's state; ``Stopped`` if it is not over and no process runs it."""
    is_left = row.state not in states.FINAL_EXPERIMENT_STATES and not runner.is_run(home, row.name)
    return STOPPED if is_left else verdict(row, trials)[0]


def _print_first_failure(home: Path, store: ExperimentStore, name: str) -> None:
    trial = next((trial for trial in store.trials(name) if trial.state in _FAILED), None)
    if trial is None:
        return
    say(f"trial {trial.name}: {printable(str(trial.conditions[-1]['message']))}")
    for line in last_lines(TrialFiles(home, name, trial.name).log, LINES_OF_A_FAILURE):
        say(f"  {printable(line)}")
