"""Katib's resources: experiments, their trials and suggestions, as views of the store."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from katib_callbacks.local.api.validation import API_VERSION
from katib_callbacks.local.api_server.resources.resource import Column, Key, Object, Snapshot, View, identity, owner
from katib_callbacks.local.state.status import experiment_object, suggestion_object, trial_object
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.template import DEFAULT_NAMESPACE

TRIAL_LABEL = "katib.kubeflow.org/trial"


def key_of(row: ExperimentRow, name: str | None = None) -> Key:
    """Return the key of an experiment, or of something that is called otherwise in its namespace."""
    return row.source["metadata"].get("namespace") or DEFAULT_NAMESPACE, name or row.name


def experiments(snapshot: Snapshot) -> Iterator[View]:
    """Yield the Experiment."""
    if snapshot.row.is_experiment:
        yield View(key_of(snapshot.row), snapshot, partial(_experiment, snapshot))


def trials(snapshot: Snapshot, trial: TrialRow) -> Iterator[View]:
    """Yield the Trial."""
    if snapshot.row.is_experiment:
        yield View(key_of(snapshot.row, trial.name), trial, partial(_trial, snapshot.row, trial))


def suggestions(snapshot: Snapshot) -> Iterator[View]:
    """Yield the Suggestion."""
    row = snapshot.row
    if row.is_experiment:
        stamp = (row.manifest["spec"], row.conditions, snapshot.trial_count)
        yield View(key_of(row), stamp, partial(_suggestion, snapshot))


def _owner(row: ExperimentRow) -> list[Object]:
    return owner(API_VERSION, "Experiment", key_of(row), row.created_s)


def _experiment(snapshot: Snapshot) -> Object:
    row = snapshot.row
    shown = experiment_object(row, snapshot.trials).serialize()
    return with_metadata(shown, uid=identity("Experiment", key_of(row), row.created_s))


def _trial(row: ExperimentRow, trial: TrialRow) -> Object:
    shown = trial_object(trial, row.manifest).serialize()
    uid = identity("Trial", key_of(row, trial.name), trial.created_s)
    return with_metadata(shown, uid=uid, ownerReferences=_owner(row))


def _suggestion(snapshot: Snapshot) -> Object:
    row = snapshot.row
    shown = suggestion_object(row, snapshot.trials).serialize()
    uid = identity("Suggestion", key_of(row), row.created_s)
    return with_metadata(shown, uid=uid, ownerReferences=_owner(row))


def with_metadata(shown: Object, **more: Any) -> Object:
    """Return an object with more in its metadata."""
    return {**shown, "metadata": {**shown["metadata"], **more}}


def condition(field: str, shown: Object) -> Any:
    """Return a field of an object's last condition."""
    conditions = (shown.get("status") or {}).get("conditions") or [{}]
    return conditions[-1].get(field)


def _count(name: str, shown: Object) -> int:
    count: int = (shown.get("status") or {}).get(name, 0)
    return count


def _best(shown: Object) -> str:
    objective = shown["spec"]["objective"]
    metrics = ((shown.get("status") or {}).get("currentOptimalTrial") or {}).get("observation", {}).get("metrics", ())
    names = {one["name"]: one["value"] for one in objective.get("metricStrategies") or ()}
    for metric in metrics:
        if metric["name"] == objective["objectiveMetricName"]:
            return str(metric.get(names.get(metric["name"], "latest")))
    return ""


def _value(shown: Object) -> str:
    objective, observed = shown["spec"]["objective"], (shown.get("status") or {}).get("observation") or {}
    found = [one for one in observed.get("metrics") or () if one["name"] == objective["objectiveMetricName"]]
    return str(found[0]["latest"]) if found else ""


NAME = Column("Name", lambda shown: shown["metadata"]["name"])
AGE = Column("Age", lambda shown: shown["metadata"].get("creationTimestamp"), "date")
_TYPE, _STATUS = Column("Type", partial(condition, "type")), Column("Status", partial(condition, "status"))

EXPERIMENT_COLUMNS = (
    NAME,
    _TYPE,
    _STATUS,
    AGE,
    Column("Trials", partial(_count, "trials"), "integer", 1),
    Column("Succeeded", partial(_count, "trialsSucceeded"), "integer", 1),
    Column("Failed", partial(_count, "trialsFailed"), "integer", 1),
    Column("Best", _best, priority=1),
)
TRIAL_COLUMNS = (NAME, _TYPE, _STATUS, AGE, Column("Objective", _value, priority=1))
SUGGESTION_COLUMNS = (
    NAME,
    _TYPE,
    _STATUS,
    Column("Requested", lambda shown: shown["spec"].get("requests")),
    Column("Assigned", lambda shown: (shown.get("status") or {}).get("suggestionCount")),
    AGE,
)
