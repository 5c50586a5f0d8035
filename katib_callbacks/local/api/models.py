"""Katib's objects, as far as one machine needs them, with the attribute names of ``kubeflow.katib.models`` 0.19.0."""

# ruff: noqa: RUF009  the calls make dataclass fields, which is what the rule asks for

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from katib_callbacks.local.api.serialization import Model, model, scalar


@dataclass
class V1ObjectMeta(Model):
    """Kubernetes' metadata, as far as an experiment uses it."""

    name: str | None = scalar(str)
    namespace: str | None = scalar(str)
    generate_name: str | None = scalar(str)
    labels: dict[str, str] | None = scalar(dict)
    annotations: dict[str, str] | None = scalar(dict)
    creation_timestamp: datetime | None = scalar(datetime)


@dataclass
class V1beta1FeasibleSpace(Model):
    """Where a parameter may lie. Numbers are strings, as everywhere in Katib's API."""

    max: str | None = scalar(str)
    min: str | None = scalar(str)
    list: "list[str] | None" = scalar(str, many=True)
    step: str | None = scalar(str)
    distribution: str | None = scalar(str)


@dataclass
class V1beta1ParameterSpec(Model):
    """One parameter of the search space."""

    name: str | None = scalar(str)
    parameter_type: str | None = scalar(str)
    feasible_space: V1beta1FeasibleSpace | None = model(V1beta1FeasibleSpace)


@dataclass
class V1beta1ParameterAssignment(Model):
    """A parameter's value in one trial, a string."""

    name: str | None = scalar(str)
    value: str | None = scalar(str)


@dataclass
class V1beta1MetricStrategy(Model):
    """The value of a metric that counts: ``min``, ``max`` or ``latest``."""

    name: str | None = scalar(str)
    value: str | None = scalar(str)


@dataclass
class V1beta1ObjectiveSpec(Model):
    """The metric that is optimised."""

    type: str | None = scalar(str)
    goal: float | None = scalar(float)
    objective_metric_name: str | None = scalar(str)
    additional_metric_names: list[str] | None = scalar(str, many=True)
    metric_strategies: list[V1beta1MetricStrategy] | None = model(V1beta1MetricStrategy, many=True)


@dataclass
class V1beta1AlgorithmSetting(Model):
    """One setting of an algorithm, both strings."""

    name: str | None = scalar(str)
    value: str | None = scalar(str)


@dataclass
class V1beta1AlgorithmSpec(Model):
    """The algorithm that searches."""

    algorithm_name: str | None = scalar(str)
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = model(V1beta1AlgorithmSetting, many=True)


@dataclass
class V1beta1EarlyStoppingSpec(Model):
    """The early stopping algorithm and its settings."""

    algorithm_name: str | None = scalar(str)
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = model(V1beta1AlgorithmSetting, many=True)


@dataclass
class V1beta1CollectorSpec(Model):
    """How metrics are collected: ``Push``, ``StdOut``, and others in a cluster."""

    kind: str | None = scalar(str)
    custom_collector: dict[str, Any] | None = scalar(dict)


@dataclass
class V1beta1FilterSpec(Model):
    """Regular expressions with two groups, the metric's name and its value."""

    metrics_format: list[str] | None = scalar(str, many=True)


@dataclass
class V1beta1FileSystemPath(Model):
    """Where a file collector reads."""

    path: str | None = scalar(str)
    kind: str | None = scalar(str)
    format: str | None = scalar(str)


@dataclass
class V1beta1SourceSpec(Model):
    """Where a collector reads, and how."""

    http_get: dict[str, Any] | None = scalar(dict)
    file_system_path: V1beta1FileSystemPath | None = model(V1beta1FileSystemPath)
    filter: V1beta1FilterSpec | None = model(V1beta1FilterSpec)


@dataclass
class V1beta1MetricsCollectorSpec(Model):
    """The collector and its source."""

    source: V1beta1SourceSpec | None = model(V1beta1SourceSpec)
    collector: V1beta1CollectorSpec | None = model(V1beta1CollectorSpec)


@dataclass
class V1beta1TrialParameterSpec(Model):
    """A name in the template, and the parameter or the trial's own value that it stands for."""

    name: str | None = scalar(str)
    description: str | None = scalar(str)
    reference: str | None = scalar(str)


@dataclass
class V1beta1ConfigMapSource(Model):
    """A template kept in a cluster's config map; there is none here."""

    config_map_name: str | None = scalar(str)
    config_map_namespace: str | None = scalar(str)
    template_path: str | None = scalar(str)


@dataclass
class V1beta1TrialTemplate(Model):
    """The program of each trial."""

    retain: bool | None = scalar(bool)
    trial_spec: Any = scalar(dict)
    config_map: V1beta1ConfigMapSource | None = model(V1beta1ConfigMapSource)
    trial_parameters: list[V1beta1TrialParameterSpec] | None = model(V1beta1TrialParameterSpec, many=True)
    primary_container_name: str | None = scalar(str)
    primary_pod_labels: dict[str, str] | None = scalar(dict)
    success_condition: str | None = scalar(str)
    failure_condition: str | None = scalar(str)


@dataclass
class V1beta1ExperimentSpec(Model):
    """The specification of an experiment."""

    objective: V1beta1ObjectiveSpec | None = model(V1beta1ObjectiveSpec)
    algorithm: V1beta1AlgorithmSpec | None = model(V1beta1AlgorithmSpec)
    early_stopping: V1beta1EarlyStoppingSpec | None = model(V1beta1EarlyStoppingSpec)
    parameters: list[V1beta1ParameterSpec] | None = model(V1beta1ParameterSpec, many=True)
    trial_template: V1beta1TrialTemplate | None = model(V1beta1TrialTemplate)
    parallel_trial_count: int | None = scalar(int)
    max_trial_count: int | None = scalar(int)
    max_failed_trial_count: int | None = scalar(int)
    metrics_collector_spec: V1beta1MetricsCollectorSpec | None = model(V1beta1MetricsCollectorSpec)
    nas_config: dict[str, Any] | None = scalar(dict)
    resume_policy: str | None = scalar(str)


@dataclass
class V1beta1Metric(Model):
    """One metric of a trial, reduced, as strings; ``unavailable`` where nothing was reported."""

    name: str | None = scalar(str)
    min: str | None = scalar(str)
    max: str | None = scalar(str)
    latest: str | None = scalar(str)


@dataclass
class V1beta1Observation(Model):
    """All declared metrics of a trial."""

    metrics: list[V1beta1Metric] | None = model(V1beta1Metric, many=True)


@dataclass
class V1beta1OptimalTrial(Model):
    """The best trial so far."""

    best_trial_name: str | None = scalar(str)
    parameter_assignments: list[V1beta1ParameterAssignment] | None = model(V1beta1ParameterAssignment, many=True)
    observation: V1beta1Observation | None = model(V1beta1Observation)


@dataclass
class V1beta1Condition(Model):
    """The fields of the conditions of all of Katib's objects."""

    type: str | None = scalar(str)
    status: str | None = scalar(str)
    reason: str | None = scalar(str)
    message: str | None = scalar(str)
    last_update_time: datetime | None = scalar(datetime)
    last_transition_time: datetime | None = scalar(datetime)


@dataclass
class V1beta1ExperimentCondition(V1beta1Condition):
    """A state that the experiment is or was in; ``status`` is the string ``True`` or ``False``."""


@dataclass
class V1beta1TrialCondition(V1beta1Condition):
    """A state that the trial is or was in; ``status`` is the string ``True`` or ``False``."""


@dataclass
class V1beta1ExperimentStatus(Model):
    """How far an experiment is."""

    start_time: datetime | None = scalar(datetime)
    completion_time: datetime | None = scalar(datetime)
    last_reconcile_time: datetime | None = scalar(datetime)
    conditions: list[V1beta1ExperimentCondition] | None = model(V1beta1ExperimentCondition, many=True)
    current_optimal_trial: V1beta1OptimalTrial | None = model(V1beta1OptimalTrial)
    running_trial_list: list[str] | None = scalar(str, many=True)
    pending_trial_list: list[str] | None = scalar(str, many=True)
    failed_trial_list: list[str] | None = scalar(str, many=True)
    succeeded_trial_list: list[str] | None = scalar(str, many=True)
    killed_trial_list: list[str] | None = scalar(str, many=True)
    early_stopped_trial_list: list[str] | None = scalar(str, many=True)
    metrics_unavailable_trial_list: list[str] | None = scalar(str, many=True)
    trials: int | None = scalar(int)
    trials_succeeded: int | None = scalar(int)
    trials_failed: int | None = scalar(int)
    trials_killed: int | None = scalar(int)
    trials_pending: int | None = scalar(int)
    trials_running: int | None = scalar(int)
    trials_early_stopped: int | None = scalar(int)
    trial_metrics_unavailable: int | None = scalar(int)

    def serialize(self) -> dict[str, Any]:
        """Return the mapping that JSON and YAML take: as in Katib without counts of zero and without empty lists."""
        return {name: value for name, value in super().serialize().items() if value not in (0, [])}


@dataclass
class V1beta1Experiment(Model):
    """An experiment."""

    api_version: str | None = scalar(str)
    kind: str | None = scalar(str)
    metadata: V1ObjectMeta | None = model(V1ObjectMeta)
    spec: V1beta1ExperimentSpec | None = model(V1beta1ExperimentSpec)
    status: V1beta1ExperimentStatus | None = model(V1beta1ExperimentStatus)


@dataclass
class V1beta1TrialSpec(Model):
    """The program of one trial, and its parameters."""

    objective: V1beta1ObjectiveSpec | None = model(V1beta1ObjectiveSpec)
    parameter_assignments: list[V1beta1ParameterAssignment] | None = model(V1beta1ParameterAssignment, many=True)
    early_stopping_rules: list[dict[str, Any]] | None = scalar(dict, many=True)
    run_spec: Any = scalar(dict)
    retain_run: bool | None = scalar(bool)
    metrics_collector: V1beta1MetricsCollectorSpec | None = model(V1beta1MetricsCollectorSpec)
    primary_pod_labels: dict[str, str] | None = scalar(dict)
    primary_container_name: str | None = scalar(str)
    success_condition: str | None = scalar(str)
    failure_condition: str | None = scalar(str)
    labels: dict[str, str] | None = scalar(dict)


@dataclass
class V1beta1TrialStatus(Model):
    """How far a trial is, and what it observed."""

    start_time: datetime | None = scalar(datetime)
    completion_time: datetime | None = scalar(datetime)
    last_reconcile_time: datetime | None = scalar(datetime)
    conditions: list[V1beta1TrialCondition] | None = model(V1beta1TrialCondition, many=True)
    observation: V1beta1Observation | None = model(V1beta1Observation)


@dataclass
class V1beta1Trial(Model):
    """A trial."""

    api_version: str | None = scalar(str)
    kind: str | None = scalar(str)
    metadata: V1ObjectMeta | None = model(V1ObjectMeta)
    spec: V1beta1TrialSpec | None = model(V1beta1TrialSpec)
    status: V1beta1TrialStatus | None = model(V1beta1TrialStatus)


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
