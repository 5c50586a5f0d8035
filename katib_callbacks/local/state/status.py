"""From stored rows to Katib's objects, with their status as Katib's controller keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks.local.algorithms.pbt import GENERATION, PARENT
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.models import V1beta1Experiment, V1beta1Trial, utc_seconds
from katib_callbacks.local.api.suggestions import V1beta1Suggestion
from katib_callbacks.local.api.validation import API_VERSION
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.template import DEFAULT_NAMESPACE, TrialTemplate

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"

_LISTS_AND_COUNTS = {
    states.CREATED: ("pendingTrialList", "trialsPending"),
    states.RUNNING: ("runningTrialList", "trialsRunning"),
    states.SUCCEEDED: ("succeededTrialList", "trialsSucceeded"),
    states.FAILED: ("failedTrialList", "trialsFailed"),
    states.KILLED: ("killedTrialList", "trialsKilled"),
    states.EARLY_STOPPED: ("earlyStoppedTrialList", "trialsEarlyStopped"),
    states.METRICS_UNAVAILABLE: ("metricsUnavailableTrialList", "trialMetricsUnavailable"),
}
"""An experiment's fields for the trials in each state."""


def experiment_object(row: ExperimentRow, trials: Sequence[TrialRow]) -> V1beta1Experiment:
    """Return an experiment with its status."""
    best = best_trial(row.manifest, trials)
    status = {
        **_times(row),
        "conditions": [_condition(one) for one in row.conditions],
        "currentOptimalTrial": None if best is None else {"bestTrialName": best.name, **_outcome(best)},
        "trials": len(trials),
    }
    for state, (listed, counted) in _LISTS_AND_COUNTS.items():
        names = [trial.name for trial in trials if trial.state == state]
        status |= {listed: names, counted: len(names)}
    metadata = {**row.manifest["metadata"], "creationTimestamp": utc_seconds(row.created_s)}
    return V1beta1Experiment.from_dict({**row.manifest, "metadata": metadata, "status": status})


def best_trial(manifest: Manifest, trials: Sequence[TrialRow]) -> TrialRow | None:
    """Return the trial with the best objective, the first of equal ones; None if none has a finite one."""
    valued = [trial for trial in trials if trial.value is not None]
    sign = -1 if manifest["spec"]["objective"]["type"] == "maximize" else 1
    return min(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)


def trial_object(row: TrialRow, manifest: Manifest) -> V1beta1Trial:
    """Return a trial with its status."""
    template = TrialTemplate.of(manifest)
    spec, written = manifest["spec"], manifest["spec"]["trialTemplate"]
    metadata = _metadata(row.name, template.namespace, row.experiment, row.created_s)
    return V1beta1Trial.from_dict(
        {
            "apiVersion": API_VERSION,
            "kind": "Trial",
            "metadata": metadata,
            "spec": {
                **{name: written.get(name) for name in ("primaryPodLabels", "successCondition", "failureCondition")},
                "objective": spec["objective"],
                "parameterAssignments": assignments(row),
                "runSpec": template.render(row.name, row.assignments),
                "retainRun": bool(template.retain),
                "metricsCollector": spec["metricsCollectorSpec"],
                "primaryContainerName": template.primary_container,
                "labels": metadata["labels"],
            },
            "status": {
                **_times(row),
                "conditions": [_condition(one) for one in row.conditions],
                "observation": _outcome(row)["observation"],
            },
        }
    )


def suggestion_object(row: ExperimentRow, trials: Sequence[TrialRow]) -> V1beta1Suggestion:
    """Return what the algorithm of an experiment was asked and has answered."""
    spec, told = row.manifest["spec"], row.conditions[-1]
    is_over = told["type"] in states.FINAL_EXPERIMENT_STATES and spec["resumePolicy"] == "Never"
    begun_s, ended_s = row.started_s or row.created_s, told["lastTransitionTime"]
    conditions = [
        states.condition(states.CREATED, "SuggestionCreated", "Suggestion is created", row.created_s),
        states.condition(states.RUNNING, "SuggestionRunning", "Suggestion is running", begun_s, status=not is_over),
    ]
    if is_over:
        message = "Suggestion is succeeded, can't be restarted"
        conditions.append(states.condition(states.SUCCEEDED, "SuggestionSucceeded", message, ended_s))
    names = {trial.number: trial.name for trial in trials}
    namespace = row.manifest["metadata"].get("namespace") or DEFAULT_NAMESPACE
    return V1beta1Suggestion.from_dict(
        {
            "apiVersion": API_VERSION,
            "kind": "Suggestion",
            "metadata": _metadata(row.name, namespace, row.name, row.created_s),
            "spec": {
                "algorithm": spec["algorithm"],
                "earlyStopping": spec.get("earlyStopping") or None,
                "requests": len(trials),
                "resumePolicy": spec["resumePolicy"],
            },
            "status": {
                "startTime": utc_seconds(row.created_s),
                "lastReconcileTime": utc_seconds(max((trial.created_s for trial in trials), default=row.created_s)),
                "completionTime": utc_seconds(ended_s) if is_over else None,
                "conditions": [_condition(one) for one in conditions],
                "suggestionCount": len(trials),
                "suggestions": [
                    {"name": trial.name, "parameterAssignments": assignments(trial), "labels": _labels(trial, names)}
                    for trial in trials
                ],
            },
        }
    )


def _metadata(name: str, namespace: str, experiment: str, created_s: float) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {EXPERIMENT_LABEL: experiment},
        "creationTimestamp": utc_seconds(created_s),
    }


def _labels(trial: TrialRow, names: Mapping[int, str]) -> dict[str, str] | None:
    """Return the labels that the algorithm gives a trial, which only pbt does."""
    generation, parent = trial.point.get(GENERATION), trial.point.get(PARENT)
    if generation is None:
        return None
    return {GENERATION: str(generation), **({} if parent is None else {PARENT: names[int(parent)]})}


def assignments(row: TrialRow) -> list[dict[str, str]]:
    """Return a trial's parameters, in JSON's form."""
    return [{"name": name, "value": value} for name, value in row.assignments.items()]


def _outcome(row: TrialRow) -> dict[str, Any]:
    observation = None if row.observation is None else {"metrics": row.observation}
    return {"parameterAssignments": assignments(row), "observation": observation}


def _condition(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {**stored, **{name: utc_seconds(stored[name]) for name in ("lastUpdateTime", "lastTransitionTime")}}


def _times(row: ExperimentRow | TrialRow) -> dict[str, Any]:
    times = {"startTime": row.started_s, "completionTime": row.completed_s}
    return {name: None if seconds is None else utc_seconds(seconds) for name, seconds in times.items()}
