"""Experiments, created, edited and deleted through the API as Katib's webhook and controller would."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError, KatibCallbacksError
from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.api_server.protocol.errors import ApiError, already_exists, invalid, not_found
from katib_callbacks.local.api_server.resources.katib import key_of
from katib_callbacks.local.api_server.resources.resource import Key, Object, Resource, Snapshot
from katib_callbacks.local.api_server.resources.trainer import RUNTIMES
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.budget import budget_changes
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore

_WEBHOOK = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request'
_COUNTS = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")
_SERVERS_OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")
"""Metadata that the server gives, whatever a client sends."""


class ExperimentWriter:
    """The writer of Katib's experiments in a home; ``start`` runs one, in a process of its own.

    Trials find the files that they name in ``folder``.
    """

    def __init__(self, home: Path, resource: Resource, folder: Path, start: Callable[[str], None]) -> None:
        self._home = home
        self._resource = resource
        self._folder = folder
        self._start = start

    def create(self, given: Object, *, is_dry_run: bool) -> tuple[Key, Object, tuple[str, ...]]:
        """Store an experiment and start it; returns its key, what a dry run would make, and warnings."""
        _check_metadata(given)
        given = {**_without(given, ("status",)), "metadata": _without(given["metadata"], _SERVERS_OWN)}
        named = str(given["metadata"].get("name"))
        try:
            name, manifest, plan = runner.admit(given)
            with ExperimentStore(runner.database(self._home)) as store:
                if store.experiments(name) or store.has_trial(name):
                    raise already_exists(self._resource, name)
            if not is_dry_run:
                runner.create(self._home, manifest, folder=self._folder)
        except ConfigurationError as error:
            raise self._refused(error, named) from error
        except ExperimentError as error:
            raise already_exists(self._resource, named) from error
        if not is_dry_run:
            self._start(name)
        notes = f"without effect on one machine: {', '.join(plan.notes)}"
        warnings = (*((notes,) if plan.notes else ()), *plan.warnings)
        return (manifest["metadata"]["namespace"], name), manifest, warnings

    def update(self, key: Key, change: Callable[[Object], Object], *, is_dry_run: bool) -> Object | None:
        """Store what a client makes of an experiment: its labels, annotations and counts may be edited."""
        try:
            with ExperimentStore(runner.database(self._home)) as store, store.editing(key[1]) as (row, columns):
                snapshot = Snapshot(row, self._home).put(*store.trials(row.name))
                (view,) = self._resource.of_experiment(snapshot)
                changes = self._edited(row, change(view.shown()), trials=snapshot.trial_count)
                if is_dry_run:
                    return {**view.shown(), **changes["manifest"]}
                columns.update(changes)
        except (ConfigurationError, ExperimentError) as error:
            if "there is no experiment" in str(error):
                raise not_found(self._resource, key[1]) from error
            raise self._refused(error, key[1]) from error
        if "conditions" in changes:  # it was over, and goes on
            self._start(key[1])
        return None

    def delete(self, key: Key) -> None:
        """End an experiment, and delete it with its trials."""
        try:
            runner.delete(self._home, key[1])
        except ExperimentError as error:
            raise ApiError("InternalError", str(error), self._resource, key[1]) from error

    def _refused(self, error: KatibCallbacksError, name: str) -> ApiError:
        del name
        return ApiError("BadRequest", f"{_WEBHOOK}: {error}")

    def _edited(self, row: ExperimentRow, new: Object, *, trials: int) -> dict[str, Any]:
        """Return the columns that an edit changes; Katib's refusals are ExperimentErrors."""
        old, spec = row.source["spec"], _spec(row, new)
        if _without(spec, _COUNTS) != _without(old, _COUNTS):
            raise ExperimentError(
                "spec: Forbidden: only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are "
                "editable"
            )
        counts = {name: spec.get(name) for name in _COUNTS if spec.get(name) != old.get(name)}
        columns: dict[str, Any] = budget_changes(row, counts, trials=trials) if counts else {}
        return _with_metadata(row, new, columns)


class TrainerWriter(ExperimentWriter):
    """The writer of Kubeflow Trainer's OptimizationJobs in a home: no more than their metadata can be edited."""

    def _refused(self, error: KatibCallbacksError, name: str) -> ApiError:
        return invalid(self._resource, name, str(error))

    def _edited(self, row: ExperimentRow, new: Object, *, trials: int) -> dict[str, Any]:
        del trials
        if _spec(row, new) != row.source["spec"]:
            raise ExperimentError("spec: Invalid value: it is immutable, and cannot be updated after creation")
        return _with_metadata(row, new, {})


class TrainJobWriter(TrainerWriter):
    """The writer of TrainJobs that are run for themselves; those of trials belong to their experiments."""

    def create(self, given: Object, *, is_dry_run: bool) -> tuple[Key, Object, tuple[str, ...]]:
        """Store a TrainJob and start it, as an experiment."""
        known = [runtime.key[1] for runtime in RUNTIMES]
        name = _at(_at(_at(given, "spec"), "runtimeRef"), "name")
        if name and name not in known:
            fault = f"spec.runtimeRef.name: there is no {name!r} here; there are: {', '.join(known)}"
            raise self._refused(ConfigurationError(fault), str(given["metadata"].get("name")))
        return super().create(given, is_dry_run=is_dry_run)

    def update(self, key: Key, change: Callable[[Object], Object], *, is_dry_run: bool) -> Object | None:
        """Store what a client makes of a TrainJob: its labels and annotations may be edited."""
        self._check_own(key[1])
        return super().update(key, change, is_dry_run=is_dry_run)

    def delete(self, key: Key) -> None:
        """End a TrainJob, and delete it."""
        self._check_own(key[1])
        super().delete(key)

    def _check_own(self, name: str) -> None:
        with ExperimentStore(runner.database(self._home)) as store:
            if not store.experiments(name):
                message = f"TrainJob {name!r} is that of a trial: edit or delete what the trial belongs to"
                raise ApiError("Forbidden", message, self._resource, name)


def _spec(row: ExperimentRow, new: Object) -> Any:
    """Return the spec that an edit comes to, with its defaults."""
    _check_metadata(new)
    for field, value in zip(("namespace", "name"), key_of(row), strict=True):
        if new["metadata"].get(field, value) != value:
            raise ApiError("BadRequest", f"metadata.{field} cannot be changed")
    return read({**new, "metadata": {"name": row.name}}).serialize()["spec"]


def _with_metadata(row: ExperimentRow, new: Object, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that an edit changes, with the metadata that a client has sent."""
    manifest = columns.get("manifest") or row.source
    metadata = {**dict(zip(("namespace", "name"), key_of(row), strict=True)), **_without(new["metadata"], _SERVERS_OWN)}
    if "ownerReferences" not in row.source["metadata"]:
        metadata.pop("ownerReferences", None)
    return {**columns, "manifest": {**manifest, "metadata": metadata}}


def _at(value: Any, field: str) -> Any:
    """Return a mapping's field; None of anything else."""
    return value.get(field) if isinstance(value, Mapping) else None


def _check_metadata(given: Any) -> None:
    """Refuse metadata by which nobody could choose or show the object."""
    metadata = given.get("metadata") if isinstance(given, Mapping) else None
    if not isinstance(metadata, Mapping):
        raise ApiError("BadRequest", "the object has no metadata")
    for field in ("labels", "annotations"):
        values = metadata.get(field) or {}
        if not isinstance(values, Mapping) or not all(isinstance(text, str) for text in values.values()):
            raise ApiError("BadRequest", f"metadata.{field}: must be a mapping of strings; put values in quotes")


def _without(mapping: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}
