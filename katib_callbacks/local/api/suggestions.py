"""Katib's Suggestion: what the algorithm was asked and has answered, with upstream's attribute names."""

from datetime import datetime

from katib_callbacks.local.api.models import (
    V1beta1AlgorithmSetting,
    V1beta1AlgorithmSpec,
    V1beta1Condition,
    V1beta1EarlyStoppingSpec,
    V1beta1ParameterAssignment,
    V1ObjectMeta,
)
from katib_callbacks.local.api.serialization import Model


class V1beta1TrialAssignment(Model):
    """An answer of the algorithm: a trial's name and parameters."""

    name: str | None = None
    parameter_assignments: list[V1beta1ParameterAssignment] | None = None
    labels: dict[str, str] | None = None


class V1beta1SuggestionCondition(V1beta1Condition):
    """A state that the suggestion is or was in; ``status`` is the string ``True`` or ``False``."""


class V1beta1SuggestionSpec(Model):
    """The question: how many answers, of which algorithm."""

    algorithm: V1beta1AlgorithmSpec | None = None
    early_stopping: V1beta1EarlyStoppingSpec | None = None
    requests: int | None = None
    resume_policy: str | None = None


class V1beta1SuggestionStatus(Model):
    """The answer."""

    algorithm_settings: list[V1beta1AlgorithmSetting] | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    last_reconcile_time: datetime | None = None
    conditions: list[V1beta1SuggestionCondition] | None = None
    suggestion_count: int | None = None
    suggestions: list[V1beta1TrialAssignment] | None = None


class V1beta1Suggestion(Model):
    """The suggestion of an experiment, whose name it has."""

    api_version: str | None = None
    kind: str | None = None
    metadata: V1ObjectMeta | None = None
    spec: V1beta1SuggestionSpec | None = None
    status: V1beta1SuggestionStatus | None = None
