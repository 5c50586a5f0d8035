"""From stored rows to the objects of the API in which the user wrote, with their status.

An OptimizationJob's reasons and messages are those of the controller that is in review (kubeflow/trainer#3828).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from katib_callbacks.local.api.models import time_text
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import assignments, best_trial, experiment_object, trial_object
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.template import TrialTemplate

CREATED, COMPLETE, FAILED = "Created", "Complete", "Failed"

JOB_NAME_LABEL = "trainer.kubeflow.org/optimizationjob-name"

_ENDS = {states.SUCCEEDED: COMPLETE, states.FAILED: FAILED}


def stored_object(row: ExperimentRow, trials: Sequence[TrialRow], home: Path | None = None) -> dict[str, Any]:
    """Return an Experiment, an OptimizationJob or a TrainJob with its status, some of which lies in files of a home."""
    if row.is_experiment:
        return experiment_object(row, trials).serialize()
    best = best_trial(row.manifest, trials)
    result = None if best is None else {"trainJobName": best.name, "parameters": assignments(best)}
    metadata = {**row.source["metadata"], "creationTimestamp": time_text(row.created_s)}
    status = _given(conditions=_conditions(row, trials), result=result)
    if row.is_train_job and status and home is not None:  # it is over
        status |= _given(trainerStatus=TrialFiles(home, row.name, row.name).status)
    return {**row.source, "metadata": metadata, **_given(status=status)}


def stored_trial(row: ExperimentRow, trial: TrialRow, home: Path) -> dict[str, Any]:
    """Return a Trial, or the TrainJob that stands for it, with its status."""
    return trial_object(trial, row.manifest).serialize() if row.is_experiment else train_job(row, trial, home)


def verdict(row: ExperimentRow, trials: Sequence[TrialRow]) -> tuple[str, str]:
    """Return the type and the message of the condition that holds now."""
    if row.is_experiment:
        return row.state, str(row.conditions[-1]["message"])
    conditions = _conditions(row, trials)
    return (conditions[-1]["type"], conditions[-1]["message"]) if conditions else (CREATED, "it has not begun")


def train_job(row: ExperimentRow, trial: TrialRow, home: Path | None) -> dict[str, Any]:
    """Return the TrainJob of a trial; the progress that it shows is read in a home."""
    rendered = TrialTemplate.of(row.manifest).render(trial.name, trial.assignments)
    metadata = rendered["metadata"]
    labels = {**(metadata.get("labels") or {}), **({JOB_NAME_LABEL: row.name} if row.is_optimization_job else {})}
    conditions = [_train_job_condition(trial)] if trial.state in states.FINAL_TRIAL_STATES else []
    shown = None if home is None else TrialFiles(home, row.name, trial.name).status
    metadata = {**metadata, "labels": labels, "creationTimestamp": time_text(trial.created_s)}
    return {**rendered, "metadata": metadata, **_given(status=_given(conditions=conditions, trainerStatus=shown))}


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not empty."""
    return {name: value for name, value in fields.items() if value}


def _conditions(row: ExperimentRow, trials: Sequence[TrialRow]) -> list[dict[str, Any]]:
    return list((_train_job_conditions if row.is_train_job else _optimization_job_conditions)(row, trials))


def _optimization_job_conditions(row: ExperimentRow, trials: Sequence[TrialRow]) -> Iterator[dict[str, Any]]:
    if row.started_s is not None:
        yield _condition(CREATED, "AlgorithmServiceCreated", "Search algorithm service is running", row.started_s)
    if row.state in _ENDS:
        stored = row.conditions[-1]
        yield _condition(_ENDS[row.state], *_reason(row, trials), stored["lastTransitionTime"])


def _reason(row: ExperimentRow, trials: Sequence[TrialRow]) -> tuple[str, str]:
    if row.state == states.SUCCEEDED:
        return "OptimizationJobCompleted", "All trials have completed successfully"
    metric = row.source["spec"]["objectives"][0]["metric"]
    for trial in trials:
        if trial.state == states.METRICS_UNAVAILABLE:
            message = f'completed trial "{trial.name}" did not report a valid objective metric "{metric}"'
            return "ObjectiveMetricMissing", message
    if failed := sum(trial.state == states.FAILED for trial in trials):
        return "TrialFailed", f"{failed} trial(s) failed"
    stored = row.conditions[-1]
    return stored["reason"], stored["message"]


def _train_job_conditions(row: ExperimentRow, trials: Sequence[TrialRow]) -> Iterator[dict[str, Any]]:
    for trial in trials:
        if trial.state in states.FINAL_TRIAL_STATES:
            yield _train_job_condition(trial)
            return
    if row.state == states.FAILED:  # before it began
        stored = row.conditions[-1]
        yield _condition(FAILED, stored["reason"], stored["message"], stored["lastTransitionTime"])


def _train_job_condition(trial: TrialRow) -> dict[str, Any]:
    stored = trial.conditions[-1]
    kind = FAILED if trial.state in {states.FAILED, states.KILLED} else COMPLETE
    reason, message = (str(stored[key]).partition(f"Job {key}: ")[2] for key in ("reason", "message"))
    return _condition(kind, reason, message, stored["lastTransitionTime"])


def _condition(kind: str, reason: str, message: str, at_s: float) -> dict[str, Any]:
    told = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {**told, "lastTransitionTime": time_text(at_s)}
