"""An experiment that is looked at again and again: what cannot have changed is not read again."""

import time
from pathlib import Path

from katib_callbacks.local.state import states
from katib_callbacks.local.state.records import trial_record
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow
from katib_callbacks.local.trainer.objects import verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.pictures.live import MAX_ROWS, RunningTrial, Snapshot, eta_s
from katib_callbacks.pictures.records import TrialRecord
from katib_callbacks.reporting.progress_file import ProgressReader

_DURATIONS = 20
"""How many of the latest trials tell how long one takes."""


class Watch:
    """Looks at one experiment; for one thread at a time.

    A trial that has ended changes no more, so each is read once then; trials that run are few.
    """

    def __init__(self, store: ExperimentStore, home: Path, name: str) -> None:
        self._store = store
        self._home = home.absolute()
        self._name = name
        self._version: int | None = None
        self._row: ExperimentRow = store.experiment(name)
        self._verdict = verdict(self._row, ())
        self._open_from = 0  # the number of the first trial that may change
        self._ended: set[int] = set()
        self._unfinished: list[TrialRow] = []
        self._readers: dict[str, ProgressReader] = {}
        self._values: dict[str, dict[str, float]] = {}
        self._counts: dict[str, int] = {}
        self._best: TrialRecord | None = None
        self._best_so_far: list[float] = []
        self._latest: list[TrialRecord] = []
        self._durations_s: list[float] = []

    def look(self) -> Snapshot:
        """Return the experiment as it is now; ExperimentError if it was deleted."""
        version = self._store.version()
        is_new = version != self._version
        news = self._read() if is_new else []
        self._version = version
        running = [self._running(trial, is_new=is_new) for trial in self._unfinished if trial.state == states.RUNNING]
        spec = self._row.manifest["spec"]
        objective = spec["objective"]
        state, message = self._verdict
        budget = spec.get("maxTrialCount")
        is_over = self._row.state in states.FINAL_EXPERIMENT_STATES and not self._unfinished
        left = None if budget is None else max(0, budget - sum(self._counts.values()) - len(running))
        is_known = left is not None and (running or self._durations_s)
        return Snapshot(
            name=self._name,
            state=state,
            message=message,
            objective=objective["objectiveMetricName"],
            metrics=(objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or ())),
            budget=budget,
            counts=dict(self._counts),
            best=self._best,
            best_so_far=list(self._best_so_far),
            running=running,
            latest=list(self._latest),
            news=news,
            eta_s=eta_s(self._durations_s, running, left or 0, spec["parallelTrialCount"]) if is_known else None,
            is_over=is_over,
        )

    def _read(self) -> list[TrialRecord]:
        """Read what may have changed; return the trials that have ended since."""
        self._row = self._store.experiment(self._name)
        trials = self._store.trials(self._name, first=self._open_from)
        self._unfinished = [trial for trial in trials if trial.state not in states.FINAL_TRIAL_STATES]
        ended = [t for t in trials if t.state in states.FINAL_TRIAL_STATES and t.number not in self._ended]
        if trials:
            self._open_from = min((trial.number for trial in self._unfinished), default=trials[-1].number + 1)
        self._ended = {number for number in self._ended if number >= self._open_from}
        news = [self._take(trial) for trial in sorted(ended, key=lambda trial: trial.completed_s or 0.0)]
        self._verdict = verdict(self._row, () if self._row.is_experiment else self._store.trials(self._name))
        return news

    def _take(self, trial: TrialRow) -> TrialRecord:
        """Count a trial that has ended."""
        if trial.number >= self._open_from:
            self._ended.add(trial.number)
        reader = self._readers.pop(trial.name, None) or ProgressReader(self._files(trial).progress)
        self._values.pop(trial.name, None)
        record = trial_record(trial, epochs=reader.read().rows)
        self._counts[trial.state] = self._counts.get(trial.state, 0) + 1
        self._latest = [*self._latest[1 - MAX_ROWS :], record]
        if record.started_s is not None and record.completed_s is not None:
            self._durations_s = [*self._durations_s[1 - _DURATIONS :], record.completed_s - record.started_s]
        if record.objective is not None:
            sign = -1 if self._row.manifest["spec"]["objective"]["type"] == "maximize" else 1
            if not self._best_so_far or sign * record.objective < sign * self._best_so_far[-1]:
                self._best = record
                self._best_so_far.append(record.objective)
            else:
                self._best_so_far.append(self._best_so_far[-1])
        return record

    def _running(self, trial: TrialRow, *, is_new: bool) -> RunningTrial:
        reader = self._readers.setdefault(trial.name, ProgressReader(self._files(trial).progress))
        shown = reader.read()
        latest = shown.latest
        if not latest and is_new:  # it has no callback, or not of ours
            self._values[trial.name] = {
                name: value
                for name, text in self._store.latest_values(trial.name).items()
                if (value := as_number(text)) is not None
            }
        return RunningTrial(
            name=trial.name,
            parameters=trial.assignments,
            started_s=trial.started_s or time.time(),
            fraction=shown.fraction,
            remaining_s=shown.remaining_s,
            epoch=None if shown.place is None else shown.place.epoch,
            step=None if shown.place is None else shown.place.step,
            latest=dict(latest) or self._values.get(trial.name, {}),
        )

    def _files(self, trial: TrialRow) -> TrialFiles:
        return TrialFiles(self._home, trial.experiment, trial.name)
