"""From stored rows to Katib's objects, with their status as Katib's controller keeps it."""

from collections.abc import Sequence
from typing import Any

from katib_callbacks.local import states
from katib_callbacks.local.api.manifest import API_VERSION
from katib_callbacks.local.api.models import (
    V1beta1Experiment,
    V1beta1ExperimentCondition,
    V1beta1ExperimentStatus,
    V1beta1Metric,
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
from katib_callbacks.local.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.template import render

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"


def experiment_object(row: ExperimentRow, trials: Sequence[TrialRow]) -> V1beta1Experiment:
    """Return an experiment with its status."""
    experiment = V1beta1Experiment.from_dict(row.experiment)
    assert experiment.metadata is not None  # noqa: S101  checked when it was read
    experiment.metadata.creation_timestamp = utc_seconds(row.created_s)
    names = {kind: [trial.name for trial in trials if trial.state == kind] for kind in _TRIAL_STATES}
    best = best_trial(experiment, trials)
    experiment.status = V1beta1ExperimentStatus(
        start_time=_time(row.started_s),
        completion_time=_time(row.completed_s),
        last_reconcile_time=_time(max((trial.completed_s or 0 for trial in trials), default=0) or row.started_s),
        conditions=[V1beta1ExperimentCondition(**_condition(one)) for one in row.conditions],
        current_optimal_trial=None if best is None else _optimal(best),
        pending_trial_list=names[states.CREATED],
        running_trial_list=names[states.RUNNING],
        succeeded_trial_list=names[states.SUCCEEDED],
        failed_trial_list=names[states.FAILED],
        killed_trial_list=names[states.KILLED],
        metrics_unavailable_trial_list=names[states.METRICS_UNAVAILABLE],
        early_stopped_trial_list=[],
        trials=len(trials),
        trials_pending=len(names[states.CREATED]),
        trials_running=len(names[states.RUNNING]),
        trials_succeeded=len(names[states.SUCCEEDED]),
        trials_failed=len(names[states.FAILED]),
        trials_killed=len(names[states.KILLED]),
        trial_metrics_unavailable=len(names[states.METRICS_UNAVAILABLE]),
        trials_early_stopped=0,
    )
    return experiment


_TRIAL_STATES = (states.CREATED, states.RUNNING, *states.FINAL_TRIAL_STATES)


def best_trial(experiment: V1beta1Experiment, trials: Sequence[TrialRow]) -> TrialRow | None:
    """Return the trial with the best objective, the first of equal ones; None if none has a finite one."""
    assert experiment.spec is not None  # noqa: S101  checked when it was read
    assert experiment.spec.objective is not None  # noqa: S101  as above
    valued = [trial for trial in trials if trial.value is not None]
    sign = -1 if experiment.spec.objective.type == "maximize" else 1
    return min(valued, key=lambda trial: sign * (trial.value or 0.0), default=None)


def trial_object(row: TrialRow, experiment: V1beta1Experiment) -> V1beta1Trial:
    """Return a trial with its status."""
    spec = experiment.spec
    assert spec is not None  # noqa: S101  checked when it was read, as what follows
    assert spec.trial_template is not None  # noqa: S101
    assert experiment.metadata is not None  # noqa: S101
    namespace = experiment.metadata.namespace or "default"
    labels = {EXPERIMENT_LABEL: row.experiment}
    return V1beta1Trial(
        api_version=API_VERSION,
        kind="Trial",
        metadata=V1ObjectMeta(
            name=row.name, namespace=namespace, labels=labels, creation_timestamp=utc_seconds(row.created_s)
        ),
        spec=V1beta1TrialSpec(
            objective=spec.objective,
            parameter_assignments=_assignments(row),
            run_spec=render(spec.trial_template, trial_name=row.name, namespace=namespace, assignments=row.assignments),
            retain_run=bool(spec.trial_template.retain),
            metrics_collector=spec.metrics_collector_spec,
            primary_pod_labels=spec.trial_template.primary_pod_labels,
            primary_container_name=spec.trial_template.primary_container_name,
            success_condition=spec.trial_template.success_condition,
            failure_condition=spec.trial_template.failure_condition,
            labels=labels,
        ),
        status=V1beta1TrialStatus(
            start_time=_time(row.started_s),
            completion_time=_time(row.completed_s),
            last_reconcile_time=_time(row.completed_s or row.started_s),
            conditions=[V1beta1TrialCondition(**_condition(one)) for one in row.conditions],
            observation=_observation(row),
        ),
    )


def _optimal(row: TrialRow) -> V1beta1OptimalTrial:
    return V1beta1OptimalTrial(
        best_trial_name=row.name, parameter_assignments=_assignments(row), observation=_observation(row)
    )


def _assignments(row: TrialRow) -> list[V1beta1ParameterAssignment]:
    return [V1beta1ParameterAssignment(name=name, value=value) for name, value in row.assignments.items()]


def _observation(row: TrialRow) -> V1beta1Observation | None:
    if row.observation is None:
        return None
    return V1beta1Observation(metrics=[V1beta1Metric(**metric) for metric in row.observation])


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
