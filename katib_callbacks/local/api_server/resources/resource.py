"""A resource, as the API has it: its names, what of the store it shows, and what may be done to it."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from katib_callbacks.local.api.serialization import Model
from katib_callbacks.local.state.store import ExperimentRow, TrialRow

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name; the namespace of what has none is empty."""

_IDENTITIES = uuid.UUID("7b2a4f0e-5f0e-4e52-9f55-0d9a1f6ad1c3")

_PART_TRIALS = 64


class Snapshot(NamedTuple):
    """An experiment and its trials at one moment, in a home.

    The trials lie in parts, by their numbers: moments that are kept share all parts but those that changed between.
    """

    row: ExperimentRow
    home: Path
    parts: Mapping[int, Mapping[str, TrialRow]] = MappingProxyType({})

    @property
    def trials(self) -> tuple[TrialRow, ...]:
        """The trials, in order."""
        return tuple(trial for _, part in sorted(self.parts.items()) for trial in part.values())

    @property
    def trial_count(self) -> int:
        """How many trials there are."""
        return sum(map(len, self.parts.values()))

    def put(self, *trials: TrialRow) -> "Snapshot":
        """Return this with trials that are new, or changed."""
        parts = dict(self.parts)
        for trial in trials:
            number = trial.number // _PART_TRIALS
            parts[number] = {**parts.get(number, {}), trial.name: trial}
        return self._replace(parts=parts)

    def without(self, trial: TrialRow) -> "Snapshot":
        """Return this without a trial."""
        number = trial.number // _PART_TRIALS
        part = {name: one for name, one in self.parts.get(number, {}).items() if name != trial.name}
        return self._replace(parts={**self.parts, number: part})


class View(NamedTuple):
    """An object that can be shown: ``shown`` makes it, and differs if and only if ``stamp`` does."""

    key: Key
    stamp: Any
    shown: Callable[[], Object]


class Column(NamedTuple):
    """A column of a table that the server prints; ``read`` gets the object. A priority above 0 is for ``-o wide``."""

    name: str
    read: Callable[[Object], Any]
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, eq=False)
class Resource:
    """A resource: one row of the table.

    Args:
        of_experiment: What an experiment with its trials comes to, if anything.
        of_trial: What one of its trials comes to, if anything.
        fixed: What is there in any case.
        named: What is there under any name, though it is not listed.
        schema: For OpenAPI: the model of the objects; None for any object.
        fields: Paths by which field selectors may choose, beside metadata.name and metadata.namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    columns: tuple[Column, ...]
    of_experiment: Callable[[Snapshot], Iterable[View]] = lambda _: ()
    of_trial: Callable[[Snapshot, TrialRow], Iterable[View]] = lambda *_: ()
    fixed: tuple[View, ...] = ()
    named: Callable[[str], View] | None = None
    schema: type[Model] | None = None
    description: str = ""
    is_namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    has_logs: bool = False

    @property
    def api_version(self) -> str:
        """The group and the version, as objects have them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> tuple[str, ...]:
        """The words of the path of the group and the version."""
        return ("apis", self.group, self.version) if self.group else ("api", self.version)

    @property
    def group_version_kind(self) -> dict[str, str]:
        """Its names, as discovery and OpenAPI tell them."""
        return {"group": self.group, "version": self.version, "kind": self.kind}


def identity(kind: str, key: Key, created_s: float) -> str:
    """Return an object's uid: the same after each start of a server, and another one for a later object of the name."""
    return str(uuid.uuid5(_IDENTITIES, f"{kind}/{key[0]}/{key[1]}/{created_s:.2f}"))


def owner(api_version: str, kind: str, key: Key, created_s: float) -> list[Object]:
    """Return ``ownerReferences`` with one owner, which controls."""
    return [
        {
            "apiVersion": api_version,
            "kind": kind,
            "name": key[1],
            "uid": identity(kind, key, created_s),
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
