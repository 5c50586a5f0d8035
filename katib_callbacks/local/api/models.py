"""Katib's objects, as far as one machine needs them, with the attribute names of ``kubeflow.katib.models`` 0.19.0.

One list, as long as Katib's API is.
"""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, TypeAlias

from katib_callbacks.local.api.serialization import Model

Strings: TypeAlias = list[str]


class V1ObjectMeta(Model):
    """Kubernetes' metadata, as far as an experiment uses it."""

    name: str | None = None
    namespace: str | None = None
    generate_name: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None


class V1beta1FeasibleSpace(Model):
    """Where a parameter may lie. Numbers are strings, as everywhere in Katib's API."""

    max: str | None = None
    min: str | None = None
    list: Strings | None = None
    step: str | None = None
    distribution: str | None = None


class V1beta1ParameterSpec(Model):
    """One parameter of the search space."""

    name: str | None = None
    parameter_type: str | None = None
    feasible_space: V1beta1FeasibleSpace | None = None


class V1beta1ParameterAssignment(Model):
    """A parameter's value in one trial, a string."""

    name: str | None = None
    value: str | None = None


class V1beta1MetricStrategy(Model):
    """The value of a metric that counts: ``min``, ``max`` or ``latest``."""

    name: str | None = None
    value: str | None = None


class V1beta1ObjectiveSpec(Model):
    """The metric that is optimised."""

    type: str | None = None
    goal: float | None = None
    objective_metric_name: str | None = None
    additional_metric_names: list[str] | None = None
    metric_strategies: list[V1beta1MetricStrategy] | None = None


class V1beta1AlgorithmSetting(Model):
    """One setting of an algorithm, both strings."""

    name: str | None = None
    value: str | None = None


class V1beta1AlgorithmSpec(Model):
    """The algorithm that searches."""

    algorithm_name: str | None = None
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = None


class V1beta1EarlyStoppingSpec(Model):
    """The early stopping algorithm and its settings."""

    algorithm_name: str | None = None
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = None


class V1beta1CollectorSpec(Model):
    """How metrics are collected: ``Push``, ``StdOut``, and others in a cluster."""

    kind: str | None = None
    custom_collector: dict[str, Any] | None = None


class V1beta1FilterSpec(Model):
    """Regular expressions with two groups, the metric's name and its value."""

    metrics_format: list[str] | None = None


class V1beta1FileSystemPath(Model):
    """Where a file collector reads."""

    path: str | None = None
    kind: str | None = None
    format: str | None = None


class V1beta1SourceSpec(Model):
    """Where a collector reads, and how."""

    http_get: dict[str, Any] | None = None
    file_system_path: V1beta1FileSystemPath | None = None
    filter: V1beta1FilterSpec | None = None


class V1beta1MetricsCollectorSpec(Model):
    """The collector and its source."""

    source: V1beta1SourceSpec | None = None
    collector: V1beta1CollectorSpec | None = None


class V1beta1TrialParameterSpec(Model):
    """A name in the template, and the parameter or the trial's own value that it stands for."""

    name: str | None = None
    description: str | None = None
    reference: str | None = None


class V1beta1ConfigMapSource(Model):
    """A template kept in a cluster's config map; there is none here."""

    config_map_name: str | None = None
    config_map_namespace: str | None = None
    template_path: str | None = None


class V1beta1TrialTemplate(Model):
    """The program of each trial."""

    retain: bool | None = None
    trial_spec: Annotated[Any, dict] = None
    config_map: V1beta1ConfigMapSource | None = None
    trial_parameters: list[V1beta1TrialParameterSpec] | None = None
    primary_container_name: str | None = None
    primary_pod_labels: dict[str, str] | None = None
    success_condition: str | None = None
    failure_condition: str | None = None


class V1beta1ExperimentSpec(Model):
    """The specification of an experiment."""

    objective: V1beta1ObjectiveSpec | None = None
    algorithm: V1beta1AlgorithmSpec | None = None
    early_stopping: V1beta1EarlyStoppingSpec | None = None
    parameters: list[V1beta1ParameterSpec] | None = None
    trial_template: V1beta1TrialTemplate | None = None
    parallel_trial_count: int | None = None
    max_trial_count: int | None = None
    max_failed_trial_count: int | None = None
    metrics_collector_spec: V1beta1MetricsCollectorSpec | None = None
    nas_config: dict[str, Any] | None = None
    resume_policy: str | None = None


class V1beta1Metric(Model):
    """One metric of a trial, reduced, as strings; ``unavailable`` where nothing was reported."""

    name: str | None = None
    min: str | None = None
    max: str | None = None
    latest: str | None = None


class V1beta1Observation(Model):
    """All declared metrics of a trial."""

    metrics: list[V1beta1Metric] | None = None


class V1beta1OptimalTrial(Model):
    """The best trial so far."""

    best_trial_name: str | None = None
    parameter_assignments: list[V1beta1ParameterAssignment] | None = None
    observation: V1beta1Observation | None = None


class V1beta1Condition(Model):
    """The fields of the conditions of all of Katib's objects."""

    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    last_update_time: datetime | None = None
    last_transition_time: datetime | None = None


class V1beta1ExperimentCondition(V1beta1Condition):
    """A state that the experiment is or was in; ``status`` is the string ``True`` or ``False``."""


class V1beta1TrialCondition(V1beta1Condition):
    """A state that the trial is or was in; ``status`` is the string ``True`` or ``False``."""


class V1beta1ExperimentStatus(Model):
    """How far an experiment is."""

    start_time: datetime | None = None
    completion_time: datetime | None = None
    last_reconcile_time: datetime | None = None
    conditions: list[V1beta1ExperimentCondition] | None = None
    current_optimal_trial: V1beta1OptimalTrial | None = None
    running_trial_list: list[str] | None = None
    pending_trial_list: list[str] | None = None
    failed_trial_list: list[str] | None = None
    succeeded_trial_list: list[str] | None = None
    killed_trial_list: list[str] | None = None
    early_stopped_trial_list: list[str] | None = None
    metrics_unavailable_trial_list: list[str] | None = None
    trials: int | None = None
    trials_succeeded: int | None = None
    trials_failed: int | None = None
    trials_killed: int | None = None
    trials_pending: int | None = None
    trials_running: int | None = None
    trials_early_stopped: int | None = None
    trial_metrics_unavailable: int | None = None

    def serialize(self) -> dict[str, Any]:
        """Return the mapping that JSON and YAML take: as in Katib without counts of zero and without empty lists."""
        return {name: value for name, value in super().serialize().items() if value not in (0, [])}


class V1beta1Experiment(Model):
    """An experiment."""

    api_version: str | None = None
    kind: str | None = None
    metadata: V1ObjectMeta | None = None
    spec: V1beta1ExperimentSpec | None = None
    status: V1beta1ExperimentStatus | None = None


class V1beta1TrialSpec(Model):
    """The program of one trial, and its parameters."""

    objective: V1beta1ObjectiveSpec | None = None
    parameter_assignments: list[V1beta1ParameterAssignment] | None = None
    early_stopping_rules: list[dict[str, Any]] | None = None
    run_spec: Annotated[Any, dict] = None
    retain_run: bool | None = None
    metrics_collector: V1beta1MetricsCollectorSpec | None = None
    primary_pod_labels: dict[str, str] | None = None
    primary_container_name: str | None = None
    success_condition: str | None = None
    failure_condition: str | None = None
    labels: dict[str, str] | None = None


class V1beta1TrialStatus(Model):
    """How far a trial is, and what it observed."""

    start_time: datetime | None = None
    completion_time: datetime | None = None
    last_reconcile_time: datetime | None = None
    conditions: list[V1beta1TrialCondition] | None = None
    observation: V1beta1Observation | None = None


class V1beta1Trial(Model):
    """A trial."""

    api_version: str | None = None
    kind: str | None = None
    metadata: V1ObjectMeta | None = None
    spec: V1beta1TrialSpec | None = None
    status: V1beta1TrialStatus | None = None


@dataclass
class TrainerResources:
    """How many processes a trial has: upstream's class of this name.

    Args:
        num_workers: Workers (nodes of a PyTorchJob), each a process of its own here.
        num_procs_per_worker: Processes of each worker, as torchrun would start them.
        resources_per_worker: CPU, memory, GPU of each worker; kept, and not enforced here.
    """

    num_workers: int
    num_procs_per_worker: int
    resources_per_worker: Any = None


def utc_seconds(seconds: float) -> datetime:
    """Return the UTC datetime of a Unix time."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def time_text(seconds: float) -> str:
    """Return a Unix time as Kubernetes writes it."""
    return utc_seconds(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
