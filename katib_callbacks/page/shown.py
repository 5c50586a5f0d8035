"""Stored rows of this machine, as the page shows them: in JSON's types."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import best_trial
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trainer.objects import verdict
from katib_callbacks.local.trials.template import TrialTemplate
from katib_callbacks.reporting.progress_file import ShownProgress

STOPPED = "Stopped"
"""The state that is shown of an experiment that is not over and that no process runs."""

_REDUCED = ("latest", "min", "max")

_STATES = (
    *(states.SUCCEEDED, states.EARLY_STOPPED, states.RUNNING, states.CREATED),
    *(states.METRICS_UNAVAILABLE, states.FAILED, states.KILLED),
)
"""From good to bad, as they are counted."""

_SHOWN_PORT = 29500
"""In the command of a trial whose processes meet at a port; a trial is given a free one."""


def shown_experiment(row: ExperimentRow, trials: Sequence[TrialRow], *, is_run: bool) -> dict[str, Any]:
    """Return all about an experiment but its trials; ``is_run`` says whether a process runs it."""
    spec, objective = row.manifest["spec"], row.manifest["spec"]["objective"]
    state, message = verdict(row, trials)
    if row.state not in states.FINAL_EXPERIMENT_STATES and not is_run:
        state, message = STOPPED, f"no process runs it; go on with: katib-callbacks experiment resume {row.name}"
    best, counts = best_trial(row.manifest, trials), Counter(trial.state for trial in trials)
    return {
        "name": row.name,
        "state": state,
        "message": message,
        "kind": "OptimizationJob" if row.is_optimization_job else "Experiment",
        "counts": {state: counts[state] for state in _STATES if counts[state]},
        "max_trials": spec.get("maxTrialCount"),
        "parallel_trials": spec.get("parallelTrialCount"),
        "algorithm": spec["algorithm"]["algorithmName"],
        "objective": {
            "metric": objective["objectiveMetricName"],
            "type": objective["type"],
            "goal": objective.get("goal"),
        },
        "metrics": [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or ())],
        "parameters": [_parameter(one) for one in spec.get("parameters") or ()],
        "best": None if best is None else {"name": best.name, "number": best.number, "value": best.value},
        "created_s": row.created_s,
        "started_s": row.started_s,
        "completed_s": row.completed_s,
        "has_logs": True,
    }


def shown_trial(trial: TrialRow) -> dict[str, Any]:
    """Return what a table says of a trial."""
    told = trial.conditions[-1]
    return {
        "name": trial.name,
        "number": trial.number,
        "state": trial.state,
        "reason": told["reason"],
        "message": told["message"],
        "parameters": trial.assignments,
        "value": trial.value,
        "metrics": {one["name"]: {key: one[key] for key in _REDUCED} for one in trial.observation or ()},
        "started_s": trial.started_s,
        "completed_s": trial.completed_s,
    }


def shown_running(trial: TrialRow, stored: Mapping[str, str], progress: ShownProgress) -> dict[str, Any]:
    """Return the same of a trial that runs, with its latest values: those that are stored, or else shown."""
    latest = {**stored, **{name: repr(value) for name, value in progress.latest.items()}}
    return {
        **shown_trial(trial),
        "metrics": {name: {"latest": value} for name, value in latest.items()},
        "progress": {
            "share": _finite(progress.fraction),
            "remaining_s": _finite(progress.remaining_s),
            "row": progress.place and progress.place.row,
        },
    }


def shown_commands(row: ExperimentRow, trial: TrialRow) -> list[str]:
    """Return the command of each of a trial's processes, as a shell reads it."""
    template = TrialTemplate.of(row.manifest)
    try:
        plan = template.plan(trial.name, trial.assignments, free_port=lambda: _SHOWN_PORT)
    except ConfigurationError as error:
        return [str(error)]
    return [shlex.join(process.command) for process in plan.processes]


def _finite(value: object) -> float | None:
    """Return a number that JSON has; a trial's own program may have written the file."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _parameter(spec: dict[str, Any]) -> dict[str, Any]:
    space = spec.get("feasibleSpace") or {}
    is_number = spec["parameterType"] in {"double", "int"}
    return {
        "name": spec["name"],
        "is_number": is_number,
        "is_logarithmic": is_number and str(space.get("distribution", "")).startswith("log"),
    }
