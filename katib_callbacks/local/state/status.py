"""From stored rows to Katib's objects, with their status as Katib's controller keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks.local.algorithms.pbt import GENERATION, PARENT
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.models import (
    V1beta1AlgorithmSpec,
    V1beta1EarlyStoppingSpec,
    V1beta1Experiment,
    V1beta1ExperimentCondition,
    V1beta1ExperimentStatus,
    V1beta1Metric,
    V1beta1MetricsCollectorSpec,
    V1beta1ObjectiveSpec,
    V1beta1Observation,
    V1beta1OptimalTrial,
    V1beta1ParameterAssignment,
    V1beta1Trial,
    V1beta1TrialCondition,
    V1beta1TrialSpec,
    V1beta1TrialStatus,
    V1ObjectMeta,
    utc_seconds,
)
from katib_callbacks.local.api.suggestions import (
    V1beta1Suggestion,
    V1beta1SuggestionCondition,
    V1beta1SuggestionSpec,
    V1beta1SuggestionStatus,
    V1beta1TrialAssignment,
)
from katib_callbacks.local.api.validation import API_VERSION
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.template import DEFAULT_NAMESPACE, TrialTemplate

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"


def experiment_object(row: ExperimentRow, trials: Sequence[TrialRow]) -> V1beta1Experiment:
    """Return an experiment with its status."""
    metadata = {**row.manifest["metadata"], "creationTimestamp": utc_seconds(row.created_s)}
    experiment = V1beta1Experiment.from_dict({**row.manifest, "metadata": metadata})
    names = {kind: [trial.name for trial in trials if trial.state == kind] for kind in _TRIAL_STATES}
    best = best_trial(row.manifest, trials)
    experiment.status = V1beta1ExperimentStatus(
        start_time=_time(row.started_s),
        completion_time=_time(row.completed_s),
        conditions=[V1beta1ExperimentCondition(**_condition(one)) for one in row.conditions],
        current_optimal_trial=None if best is None else _optimal(best),
        pending_trial_list=names[states.CREATED],
        running_trial_list=names[states.RUNNING],
        succeeded_trial_list=names[states.SUCCEEDED],
        failed_trial_list=names[states.FAILED],
        killed_trial_list=names[states.KILLED],
        early_stopped_trial_list=names[states.EARLY_STOPPED],
        metrics_unavailable_trial_list=names[states.METRICS_UNAVAILABLE],
        trials=len(trials),
        trials_pending=len(names[states.CREATED]),
        trials_running=len(names[states.RUNNING]),
        trials_succeeded=len(names[states.SUCCEEDED]),
        trials_failed=len(names[states.FAILED]),
        trials_killed=len(names[states.KILLED]),
        trials_early_stopped=len(names[states.EARLY_STOPPED]),
        trial_metrics_unavailable=len(names[states.METRICS_UNAVAILABLE]),
    )
    return experiment


_TRIAL_STATES = (states.CREATED, states.RUNNING, *states.FINAL_TRIAL_STATES)


def best_trial(manifest: Manifest, trials: Sequence[TrialRow]) -> TrialRow | None:
    """Return the trial with the best objective, the first of equal ones; None if none has a finite one."""
    valued = [trial for trial in trials if trial.value is not None]
    sign = -1 if manifest["spec"]["objective"]["type"] == "maximize" else 1
    return min(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)


def trial_object(row: TrialRow, manifest: Manifest) -> V1beta1Trial:
    """Return a trial with its status."""
    template = TrialTemplate.of(manifest)
    written = manifest["spec"]["trialTemplate"]
    labels = {EXPERIMENT_LABEL: row.experiment}
    return V1beta1Trial(
        api_version=API_VERSION,
        kind="Trial",
        metadata=V1ObjectMeta(
            name=row.name, namespace=template.namespace, labels=labels, creation_timestamp=utc_seconds(row.created_s)
        ),
        spec=V1beta1TrialSpec(
            objective=V1beta1ObjectiveSpec.from_dict(manifest["spec"]["objective"]),
            parameter_assignments=assignments(row),
            run_spec=template.render(row.name, row.assignments),
            retain_run=bool(template.retain),
            metrics_collector=V1beta1MetricsCollectorSpec.from_dict(manifest["spec"]["metricsCollectorSpec"]),
            primary_pod_labels=written.get("primaryPodLabels"),
            primary_container_name=template.primary_container,
            success_condition=written.get("successCondition"),
            failure_condition=written.get("failureCondition"),
            labels=labels,
        ),
        status=V1beta1TrialStatus(
            start_time=_time(row.started_s),
            completion_time=_time(row.completed_s),
            conditions=[V1beta1TrialCondition(**_condition(one)) for one in row.conditions],
            observation=_observation(row),
        ),
    )


def suggestion_object(row: ExperimentRow, trials: Sequence[TrialRow]) -> V1beta1Suggestion:
    """Return what the algorithm of an experiment was asked and has answered."""
    spec, metadata = row.manifest["spec"], row.manifest["metadata"]
    told = row.conditions[-1]
    is_over = told["type"] in states.FINAL_EXPERIMENT_STATES and spec["resumePolicy"] == "Never"
    conditions = [
        states.condition(states.CREATED, "SuggestionCreated", "Suggestion is created", row.created_s),
        states.condition(
            states.RUNNING,
            "SuggestionRunning",
            "Suggestion is running",
            row.started_s or row.created_s,
            status=not is_over,
        ),
    ]
    if is_over:
        message = "Suggestion is succeeded, can't be restarted"
        at_s = told["lastTransitionTime"]
        conditions.append(states.condition(states.SUCCEEDED, "SuggestionSucceeded", message, at_s))
    names = {trial.number: trial.name for trial in trials}
    return V1beta1Suggestion(
        api_version=API_VERSION,
        kind="Suggestion",
        metadata=V1ObjectMeta(
            name=row.name,
            namespace=metadata.get("namespace") or DEFAULT_NAMESPACE,
            labels={EXPERIMENT_LABEL: row.name},
            creation_timestamp=utc_seconds(row.created_s),
        ),
        spec=V1beta1SuggestionSpec(
            algorithm=V1beta1AlgorithmSpec.from_dict(spec["algorithm"]),
            early_stopping=V1beta1EarlyStoppingSpec.from_dict(spec["earlyStopping"])
            if spec.get("earlyStopping")
            else None,
            requests=len(trials),
            resume_policy=spec["resumePolicy"],
        ),
        status=V1beta1SuggestionStatus(
            start_time=_time(row.created_s),
            last_reconcile_time=_time(max((trial.created_s for trial in trials), default=row.created_s)),
            completion_time=_time(told["lastTransitionTime"]) if is_over else None,
            conditions=[V1beta1SuggestionCondition(**_condition(one)) for one in conditions],
            suggestion_count=len(trials),
            suggestions=[
                V1beta1TrialAssignment(
                    name=trial.name, parameter_assignments=assignments(trial), labels=_labels(trial, names)
                )
                for trial in trials
            ],
        ),
    )


def _labels(trial: TrialRow, names: Mapping[int, str]) -> dict[str, str] | None:
    """Return the labels that the algorithm gives a trial, which only pbt does."""
    generation, parent = trial.point.get(GENERATION), trial.point.get(PARENT)
    if generation is None:
        return None
    return {GENERATION: str(generation), **({} if parent is None else {PARENT: names[int(parent)]})}


def _optimal(row: TrialRow) -> V1beta1OptimalTrial:
    return V1beta1OptimalTrial(
        best_trial_name=row.name, parameter_assignments=assignments(row), observation=_observation(row)
    )


def assignments(row: TrialRow) -> list[V1beta1ParameterAssignment]:
    """Return a trial's parameters."""
    return [V1beta1ParameterAssignment(name=name, value=value) for name, value in row.assignments.items()]


def metrics(row: TrialRow) -> list[V1beta1Metric]:
    """Return what a trial's rows come to; empty if they do not count."""
    return [V1beta1Metric(**metric) for metric in row.observation or ()]


def _observation(row: TrialRow) -> V1beta1Observation | None:
    return None if row.observation is None else V1beta1Observation(metrics=metrics(row))


def _condition(stored: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": stored["type"],
        "status": stored["status"],
        "reason": stored["reason"],
        "message": stored["message"],
        "last_update_time": utc_seconds(stored["lastUpdateTime"]),
        "last_transition_time": utc_seconds(stored["lastTransitionTime"]),
    }


def _time(seconds: float | None) -> Any:
    return None if seconds is None else utc_seconds(seconds)
