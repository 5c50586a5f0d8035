"""Katib's Suggestion: what the algorithm was asked and has answered, with upstream's attribute names."""

# ruff: noqa: RUF009  the calls make dataclass fields, which is what the rule asks for

from dataclasses import dataclass
from datetime import datetime

from katib_callbacks.local.api.models import (
    V1beta1AlgorithmSetting,
    V1beta1AlgorithmSpec,
    V1beta1Condition,
    V1beta1EarlyStoppingSpec,
    V1beta1ParameterAssignment,
    V1ObjectMeta,
)
from katib_callbacks.local.api.serialization import Model, model, scalar


@dataclass
class V1beta1TrialAssignment(Model):
    """An answer of the algorithm: a trial's name and parameters."""

    name: str | None = scalar(str)
    parameter_assignments: list[V1beta1ParameterAssignment] | None = model(V1beta1ParameterAssignment, many=True)
    labels: dict[str, str] | None = scalar(dict)


@dataclass
class V1beta1SuggestionCondition(V1beta1Condition):
    """A state that the suggestion is or was in; ``status`` is the string ``True`` or ``False``."""


@dataclass
class V1beta1SuggestionSpec(Model):
    """The question: how many answers, of which algorithm."""

    algorithm: V1beta1AlgorithmSpec | None = model(V1beta1AlgorithmSpec)
    early_stopping: V1beta1EarlyStoppingSpec | None = model(V1beta1EarlyStoppingSpec)
    requests: int | None = scalar(int)
    resume_policy: str | None = scalar(str)


@dataclass
class V1beta1SuggestionStatus(Model):
    """The answer."""

    algorithm_settings: list[V1beta1AlgorithmSetting] | None = model(V1beta1AlgorithmSetting, many=True)
    start_time: datetime | None = scalar(datetime)
    completion_time: datetime | None = scalar(datetime)
    last_reconcile_time: datetime | None = scalar(datetime)
    conditions: list[V1beta1SuggestionCondition] | None = model(V1beta1SuggestionCondition, many=True)
    suggestion_count: int | None = scalar(int)
    suggestions: list[V1beta1TrialAssignment] | None = model(V1beta1TrialAssignment, many=True)


@dataclass
class V1beta1Suggestion(Model):
    """The suggestion of an experiment, whose name it has."""

    api_version: str | None = scalar(str)
    kind: str | None = scalar(str)
    metadata: V1ObjectMeta | None = model(V1ObjectMeta)
    spec: V1beta1SuggestionSpec | None = model(V1beta1SuggestionSpec)
    status: V1beta1SuggestionStatus | None = model(V1beta1SuggestionStatus)
