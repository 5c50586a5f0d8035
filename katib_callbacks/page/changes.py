"""Changes since a page has asked: of a thousand trials only those that are others now are sent."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any


class Changes:
    """The trials of one experiment as they were sent, each with the revision that it came with."""

    def __init__(self) -> None:
        self._generation = secrets.token_hex(8)
        self._revision = 0
        self._experiment: Mapping[str, Any] = {}
        self._trials: dict[str, tuple[int, Mapping[str, Any]]] = {}

    def take(self, experiment: Mapping[str, Any], trials: Iterable[Mapping[str, Any]]) -> None:
        """Take what holds now."""
        revision = self._revision + 1
        known, self._trials = self._trials, {}
        for trial in trials:
            old = known.get(trial["name"])
            is_same = old is not None and (old[1] is trial or old[1] == trial)
            self._trials[trial["name"]] = old if old is not None and is_same else (revision, trial)
        if known.keys() - self._trials.keys():  # none of them ends otherwise: it is another experiment of this name
            self._generation = secrets.token_hex(8)
        if experiment != self._experiment or known != self._trials:
            self._experiment, self._revision = experiment, revision

    def since(self, generation: str, revision: int) -> dict[str, Any]:
        """Return what a page lacks that has seen a revision of a generation; everything, if it has seen another."""
        is_known = generation == self._generation
        answer: dict[str, Any] = {"generation": self._generation, "revision": self._revision}
        if is_known and revision == self._revision:
            return answer
        changed = [trial for at, trial in self._trials.values() if not is_known or at > revision]
        return {**answer, "experiment": self._experiment, "is_whole": not is_known, "trials": changed}
