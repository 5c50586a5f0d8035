"""Katib's objects, with the attribute names of ``kubeflow.katib.models`` (0.19.0): what the client hands out and takes.

A model is a dataclass; its fields know their type, so that one reader and one checker serve all. In JSON and YAML the
names are camelCase. Fields that are not known here are kept and written again.

Source of the names: the OpenAPI models of kubeflow-katib 0.19.0; each class there has one here, as far as one machine
needs it.
"""

# ruff: noqa: RUF009  the calls make dataclass fields, which is what the rule asks for

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from katib_callbacks.metrics import format_timestamp, parse_timestamp

ModelT = TypeVar("ModelT", bound="Model")


def _scalar(kind: type, *, many: bool = False) -> Any:
    return dataclasses.field(default=None, metadata={"kind": kind, "many": many})


def _model(kind: "type[Model]", *, many: bool = False) -> Any:
    return dataclasses.field(default=None, metadata={"kind": kind, "many": many})


def camel_case(name: str) -> str:
    """Return the JSON name of an attribute: ``max_trial_count`` is ``maxTrialCount``."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


class Model:
    """The base of all models: reading from and writing to JSON's mappings."""

    @classmethod
    def from_dict(cls: type[ModelT], data: Mapping[str, Any]) -> ModelT:  # noqa: PYI019  typing.Self came with 3.11
        """Read the mapping that JSON or YAML gives, with camelCase names. What is not known here is kept."""
        known = {camel_case(field.name): field for field in model_fields(cls)}
        model = cls(**{field.name: _read(field, data[name]) for name, field in known.items() if name in data})
        model.__dict__["unknown"] = {name: value for name, value in data.items() if name not in known}
        return model

    def serialize(self) -> dict[str, Any]:
        """Return the mapping that JSON and YAML take, without what is None."""
        values = {camel_case(field.name): getattr(self, field.name) for field in model_fields(type(self))}
        written = {name: _write(value) for name, value in values.items() if value is not None}
        return {**written, **self.__dict__.get("unknown", {})}

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping with the attributes' own names, nested, None included: upstream's ``to_dict``."""
        return {field.name: _to_dict(getattr(self, field.name)) for field in model_fields(type(self))}


def model_fields(kind: "type[Model]") -> "Iterator[dataclasses.Field[Any]]":
    """Yield the fields of a model's class; each has ``kind`` and ``many`` in its metadata."""
    yield from dataclasses.fields(kind)  # type: ignore[arg-type]  # every subclass is a dataclass


def _read(field: "dataclasses.Field[Any]", value: Any) -> Any:
    kind = field.metadata["kind"]
    if field.metadata["many"] and isinstance(value, (list, tuple)):
        return [_read_one(kind, item) for item in value]
    return _read_one(kind, value)


def _read_one(kind: type, value: Any) -> Any:
    if issubclass(kind, Model) and isinstance(value, Mapping):
        return kind.from_dict(value)
    if kind is datetime and isinstance(value, str):
        return parse_timestamp(value)
    return value


def _write(value: Any) -> Any:
    if isinstance(value, Model):
        return value.serialize()
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, Mapping):
        return {name: _write(item) for name, item in value.items()}
    return [_write(item) for item in value] if isinstance(value, (list, tuple)) else value


def _to_dict(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    return [_to_dict(item) for item in value] if isinstance(value, list) else value


@dataclass
class V1ObjectMeta(Model):
    """Kubernetes' metadata, as far as an experiment uses it."""

    name: str | None = _scalar(str)
    namespace: str | None = _scalar(str)
    generate_name: str | None = _scalar(str)
    labels: dict[str, str] | None = _scalar(dict)
    annotations: dict[str, str] | None = _scalar(dict)
    creation_timestamp: datetime | None = _scalar(datetime)


@dataclass
class V1beta1FeasibleSpace(Model):
    """Where a parameter may lie. Numbers are strings, as everywhere in Katib's API."""

    max: str | None = _scalar(str)
    min: str | None = _scalar(str)
    list: "list[str] | None" = _scalar(str, many=True)
    step: str | None = _scalar(str)
    distribution: str | None = _scalar(str)


@dataclass
class V1beta1ParameterSpec(Model):
    """One parameter of the search space."""

    name: str | None = _scalar(str)
    parameter_type: str | None = _scalar(str)
    feasible_space: V1beta1FeasibleSpace | None = _model(V1beta1FeasibleSpace)


@dataclass
class V1beta1ParameterAssignment(Model):
    """A parameter's value in one trial, a string."""

    name: str | None = _scalar(str)
    value: str | None = _scalar(str)


@dataclass
class V1beta1MetricStrategy(Model):
    """Which of a metric's values counts: ``min``, ``max`` or ``latest``."""

    name: str | None = _scalar(str)
    value: str | None = _scalar(str)


@dataclass
class V1beta1ObjectiveSpec(Model):
    """What is optimised."""

    type: str | None = _scalar(str)
    goal: float | None = _scalar(float)
    objective_metric_name: str | None = _scalar(str)
    additional_metric_names: list[str] | None = _scalar(str, many=True)
    metric_strategies: list[V1beta1MetricStrategy] | None = _model(V1beta1MetricStrategy, many=True)


@dataclass
class V1beta1AlgorithmSetting(Model):
    """One setting of an algorithm, both strings."""

    name: str | None = _scalar(str)
    value: str | None = _scalar(str)


@dataclass
class V1beta1AlgorithmSpec(Model):
    """Which algorithm searches."""

    algorithm_name: str | None = _scalar(str)
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = _model(V1beta1AlgorithmSetting, many=True)


@dataclass
class V1beta1EarlyStoppingSpec(Model):
    """Which early stopping algorithm Katib runs in a cluster; kept, and not acted upon here."""

    algorithm_name: str | None = _scalar(str)
    algorithm_settings: list[V1beta1AlgorithmSetting] | None = _model(V1beta1AlgorithmSetting, many=True)


@dataclass
class V1beta1CollectorSpec(Model):
    """How metrics are collected: ``Push``, ``StdOut``, and others in a cluster."""

    kind: str | None = _scalar(str)
    custom_collector: dict[str, Any] | None = _scalar(dict)


@dataclass
class V1beta1FilterSpec(Model):
    """Regular expressions with two groups, the metric's name and its value."""

    metrics_format: list[str] | None = _scalar(str, many=True)


@dataclass
class V1beta1FileSystemPath(Model):
    """Where a file collector reads."""

    path: str | None = _scalar(str)
    kind: str | None = _scalar(str)
    format: str | None = _scalar(str)


@dataclass
class V1beta1SourceSpec(Model):
    """Where a collector reads, and how."""

    http_get: dict[str, Any] | None = _scalar(dict)
    file_system_path: V1beta1FileSystemPath | None = _model(V1beta1FileSystemPath)
    filter: V1beta1FilterSpec | None = _model(V1beta1FilterSpec)


@dataclass
class V1beta1MetricsCollectorSpec(Model):
    """The collector and its source."""

    source: V1beta1SourceSpec | None = _model(V1beta1SourceSpec)
    collector: V1beta1CollectorSpec | None = _model(V1beta1CollectorSpec)


@dataclass
class V1beta1TrialParameterSpec(Model):
    """A name in the template, and the parameter or the trial's own value that it stands for."""

    name: str | None = _scalar(str)
    description: str | None = _scalar(str)
    reference: str | None = _scalar(str)


@dataclass
class V1beta1ConfigMapSource(Model):
    """A template kept in a cluster's config map; there is none here."""

    config_map_name: str | None = _scalar(str)
    config_map_namespace: str | None = _scalar(str)
    template_path: str | None = _scalar(str)


@dataclass
class V1beta1TrialTemplate(Model):
    """What each trial runs."""

    retain: bool | None = _scalar(bool)
    trial_spec: Any = _scalar(dict)
    config_map: V1beta1ConfigMapSource | None = _model(V1beta1ConfigMapSource)
    trial_parameters: list[V1beta1TrialParameterSpec] | None = _model(V1beta1TrialParameterSpec, many=True)
    primary_container_name: str | None = _scalar(str)
    primary_pod_labels: dict[str, str] | None = _scalar(dict)
    success_condition: str | None = _scalar(str)
    failure_condition: str | None = _scalar(str)


@dataclass
class V1beta1ExperimentSpec(Model):
    """What an experiment is to do."""

    objective: V1beta1ObjectiveSpec | None = _model(V1beta1ObjectiveSpec)
    algorithm: V1beta1AlgorithmSpec | None = _model(V1beta1AlgorithmSpec)
    early_stopping: V1beta1EarlyStoppingSpec | None = _model(V1beta1EarlyStoppingSpec)
    parameters: list[V1beta1ParameterSpec] | None = _model(V1beta1ParameterSpec, many=True)
    trial_template: V1beta1TrialTemplate | None = _model(V1beta1TrialTemplate)
    parallel_trial_count: int | None = _scalar(int)
    max_trial_count: int | None = _scalar(int)
    max_failed_trial_count: int | None = _scalar(int)
    metrics_collector_spec: V1beta1MetricsCollectorSpec | None = _model(V1beta1MetricsCollectorSpec)
    nas_config: dict[str, Any] | None = _scalar(dict)
    resume_policy: str | None = _scalar(str)


@dataclass
class V1beta1Metric(Model):
    """One metric of a trial, reduced, as strings; ``unavailable`` where nothing was reported."""

    name: str | None = _scalar(str)
    min: str | None = _scalar(str)
    max: str | None = _scalar(str)
    latest: str | None = _scalar(str)


@dataclass
class V1beta1Observation(Model):
    """All declared metrics of a trial."""

    metrics: list[V1beta1Metric] | None = _model(V1beta1Metric, many=True)


@dataclass
class V1beta1OptimalTrial(Model):
    """The best trial so far."""

    best_trial_name: str | None = _scalar(str)
    parameter_assignments: list[V1beta1ParameterAssignment] | None = _model(V1beta1ParameterAssignment, many=True)
    observation: V1beta1Observation | None = _model(V1beta1Observation)


@dataclass
class _Condition(Model):
    type: str | None = _scalar(str)
    status: str | None = _scalar(str)
    reason: str | None = _scalar(str)
    message: str | None = _scalar(str)
    last_update_time: datetime | None = _scalar(datetime)
    last_transition_time: datetime | None = _scalar(datetime)


@dataclass
class V1beta1ExperimentCondition(_Condition):
    """A state that the experiment is or was in; ``status`` is the string ``True`` or ``False``."""


@dataclass
class V1beta1TrialCondition(_Condition):
    """A state that the trial is or was in; ``status`` is the string ``True`` or ``False``."""


@dataclass
class V1beta1ExperimentStatus(Model):
    """How far an experiment is."""

    start_time: datetime | None = _scalar(datetime)
    completion_time: datetime | None = _scalar(datetime)
    last_reconcile_time: datetime | None = _scalar(datetime)
    conditions: list[V1beta1ExperimentCondition] | None = _model(V1beta1ExperimentCondition, many=True)
    current_optimal_trial: V1beta1OptimalTrial | None = _model(V1beta1OptimalTrial)
    running_trial_list: list[str] | None = _scalar(str, many=True)
    pending_trial_list: list[str] | None = _scalar(str, many=True)
    failed_trial_list: list[str] | None = _scalar(str, many=True)
    succeeded_trial_list: list[str] | None = _scalar(str, many=True)
    killed_trial_list: list[str] | None = _scalar(str, many=True)
    early_stopped_trial_list: list[str] | None = _scalar(str, many=True)
    metrics_unavailable_trial_list: list[str] | None = _scalar(str, many=True)
    trials: int | None = _scalar(int)
    trials_succeeded: int | None = _scalar(int)
    trials_failed: int | None = _scalar(int)
    trials_killed: int | None = _scalar(int)
    trials_pending: int | None = _scalar(int)
    trials_running: int | None = _scalar(int)
    trials_early_stopped: int | None = _scalar(int)
    trial_metrics_unavailable: int | None = _scalar(int)


@dataclass
class V1beta1Experiment(Model):
    """An experiment."""

    api_version: str | None = _scalar(str)
    kind: str | None = _scalar(str)
    metadata: V1ObjectMeta | None = _model(V1ObjectMeta)
    spec: V1beta1ExperimentSpec | None = _model(V1beta1ExperimentSpec)
    status: V1beta1ExperimentStatus | None = _model(V1beta1ExperimentStatus)


@dataclass
class V1beta1TrialSpec(Model):
    """What one trial runs, and with which parameters."""

    objective: V1beta1ObjectiveSpec | None = _model(V1beta1ObjectiveSpec)
    parameter_assignments: list[V1beta1ParameterAssignment] | None = _model(V1beta1ParameterAssignment, many=True)
    early_stopping_rules: list[dict[str, Any]] | None = _scalar(dict, many=True)
    run_spec: Any = _scalar(dict)
    retain_run: bool | None = _scalar(bool)
    metrics_collector: V1beta1MetricsCollectorSpec | None = _model(V1beta1MetricsCollectorSpec)
    primary_pod_labels: dict[str, str] | None = _scalar(dict)
    primary_container_name: str | None = _scalar(str)
    success_condition: str | None = _scalar(str)
    failure_condition: str | None = _scalar(str)
    labels: dict[str, str] | None = _scalar(dict)


@dataclass
class V1beta1TrialStatus(Model):
    """How far a trial is, and what it observed."""

    start_time: datetime | None = _scalar(datetime)
    completion_time: datetime | None = _scalar(datetime)
    last_reconcile_time: datetime | None = _scalar(datetime)
    conditions: list[V1beta1TrialCondition] | None = _model(V1beta1TrialCondition, many=True)
    observation: V1beta1Observation | None = _model(V1beta1Observation)


@dataclass
class V1beta1Trial(Model):
    """A trial."""

    api_version: str | None = _scalar(str)
    kind: str | None = _scalar(str)
    metadata: V1ObjectMeta | None = _model(V1ObjectMeta)
    spec: V1beta1TrialSpec | None = _model(V1beta1TrialSpec)
    status: V1beta1TrialStatus | None = _model(V1beta1TrialStatus)


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


def plain(value: Any) -> Any:
    """Turn models into JSON's mappings and lists: ours, and those of upstream's and Kubernetes' SDKs.

    Their generated classes carry ``attribute_map``, {attribute: JSON name}, and are read by it alone, so that neither
    package need be installed.
    """
    if isinstance(value, Model):
        return plain(value.serialize())
    names = getattr(type(value), "attribute_map", None)
    if isinstance(names, Mapping):
        pairs = ((names[attribute], getattr(value, attribute, None)) for attribute in names)
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return format_timestamp(value) if isinstance(value, datetime) else value
