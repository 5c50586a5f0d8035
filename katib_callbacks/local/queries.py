"""The client's answers from the stored state: experiments, trials, metrics, logs."""

# ruff: noqa: ARG002  upstream's arguments, of which some have no effect on one machine

import os
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.models import (
    V1beta1Experiment,
    V1beta1ExperimentCondition,
    V1beta1Metric,
    V1beta1OptimalTrial,
    V1beta1ParameterAssignment,
    V1beta1Trial,
)
from katib_callbacks.local.api.suggestions import V1beta1Suggestion
from katib_callbacks.local.collectors.stdout import read_output
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state import states
from katib_callbacks.local.state.records import experiment_record
from katib_callbacks.local.state.status import (
    assignments,
    best_trial,
    experiment_object,
    suggestion_object,
    trial_object,
)
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.local.trainer.objects import verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.process import shell_log
from katib_callbacks.metrics import format_timestamp
from katib_callbacks.pictures.frames import data_frame
from katib_callbacks.pictures.notebook import table_html
from katib_callbacks.pictures.records import ExperimentRecord

DEFAULT_TIMEOUT_S = 120
DEFAULT_DB_MANAGER_ADDRESS = "katib-db-manager.kubeflow:6789"
"""Upstream's defaults (constants/constants.py)."""

_FOLLOW_INTERVAL_S = 0.2


class Queries:
    """The methods of ``kubeflow.katib.KatibClient`` that only read; ``home`` is absolute.

    ``namespace``, ``timeout`` and ``db_manager_address`` are a cluster's, and without effect here. A name that there is
    not is an ExperimentError, which is a RuntimeError.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def get_experiment(
        self, name: str, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> V1beta1Experiment:
        """Return an experiment with its status."""
        with ExperimentStore(database(self._home)) as store:
            return experiment_object(store.experiment(name), store.trials(name))

    def list_experiments(
        self, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[V1beta1Experiment]:
        """Return all experiments of this home, the oldest first."""
        with ExperimentStore(database(self._home)) as store:
            return [experiment_object(row, store.trials(row.name)) for row in store.experiments()]

    def get_experiment_conditions(
        self,
        name: str,
        namespace: str | None = None,
        experiment: V1beta1Experiment | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> list[V1beta1ExperimentCondition]:
        """Return the conditions of an experiment, of one that was read before if it is given."""
        read = experiment or self.get_experiment(name, namespace, timeout)
        return list((read.status and read.status.conditions) or ())

    def _has(
        self,
        kind: str,
        name: str,
        namespace: str | None = None,
        experiment: V1beta1Experiment | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> bool:
        """Return whether a condition of an experiment holds, of one that was read before if it is given."""
        conditions = self.get_experiment_conditions(name, namespace, experiment, timeout)
        return any(one.type == kind and one.status == "True" for one in conditions)

    is_experiment_created = partialmethod(_has, states.CREATED)
    """Return whether an experiment is or was Created. With get_experiment_conditions' arguments, as below."""

    is_experiment_running = partialmethod(_has, states.RUNNING)
    """Return whether an experiment is Running."""

    is_experiment_restarting = partialmethod(_has, states.RESTARTING)
    """Return whether an experiment is Restarting, after its budget was raised."""

    is_experiment_succeeded = partialmethod(_has, states.SUCCEEDED)
    """Return whether an experiment has Succeeded."""

    is_experiment_failed = partialmethod(_has, states.FAILED)
    """Return whether an experiment has Failed."""

    def get_trial(self, name: str, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S) -> V1beta1Trial:
        """Return a trial with its status."""
        with ExperimentStore(database(self._home)) as store:
            row = store.trial(name)
            return trial_object(row, store.experiment(row.experiment).manifest)

    def list_trials(
        self, experiment_name: str | None = None, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[V1beta1Trial]:
        """Return the trials of an experiment, or of all, in the order in which they were made."""
        return [trial_object(row, manifest) for row, manifest in self._trials(experiment_name)]

    def get_suggestion(
        self, name: str, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> V1beta1Suggestion:
        """Return what the algorithm of an experiment was asked and has answered."""
        with ExperimentStore(database(self._home)) as store:
            return suggestion_object(store.experiment(name), store.trials(name))

    def list_suggestions(
        self, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[V1beta1Suggestion]:
        """Return the suggestions of all experiments of this home, the oldest first."""
        with ExperimentStore(database(self._home)) as store:
            return [suggestion_object(row, store.trials(row.name)) for row in store.experiments()]

    def get_success_trial_details(
        self, experiment_name: str | None = None, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[dict[str, Any]]:
        """Return name, parameter assignments and metrics of each trial that succeeded."""
        return [
            {
                "name": row.name,
                "parameter_assignments": [V1beta1ParameterAssignment(**one) for one in assignments(row)],
                "metrics": [V1beta1Metric(**one) for one in row.observation or ()],
            }
            for row, _ in self._trials(experiment_name)
            if row.state == states.SUCCEEDED
        ]

    def _trials(self, experiment: str | None) -> list[tuple[TrialRow, Manifest]]:
        """Return trials with their experiments' manifests; those of TrainJobs are none."""
        with ExperimentStore(database(self._home)) as store:
            manifests = {row.name: row.manifest for row in store.experiments()}
            trials = store.trials(experiment)
        return [(row, manifests[row.experiment]) for row in trials if row.experiment in manifests]

    def get_optimal_hyperparameters(
        self, name: str, namespace: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> V1beta1OptimalTrial | None:
        """Return the best trial so far, with its parameters and metrics; None if there is none."""
        status = self.get_experiment(name, namespace, timeout).status
        return status.current_optimal_trial if status else None

    def get_trial_metrics(
        self,
        name: str,
        namespace: str | None = None,
        db_manager_address: str = DEFAULT_DB_MANAGER_ADDRESS,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> list[Any]:
        """Return a trial's rows as Katib's messages: ``[0].metric.value``, ``[0].metric.name``, ``[0].time_stamp``."""
        from katib_callbacks.wire import messages  # noqa: PLC0415  loads protobuf

        with ExperimentStore(database(self._home)) as store:
            store.trial(name)
            return [
                messages.MetricLog(
                    time_stamp=format_timestamp(row.timestamp), metric=messages.Metric(name=row.name, value=row.value)
                )
                for row in store.rows(name)
            ]

    def get_job_logs(
        self, name: str, trial_name: str, follow: bool | None = False, namespace: str | None = None
    ) -> Iterator[str]:
        """Yield the lines that a trial's primary process has written; with ``follow`` until the trial is over."""
        if not name or not trial_name:
            raise ConfigurationError("get_job_logs: name and trial_name must be given")
        with ExperimentStore(database(self._home)) as store:
            if store.trial(trial_name).experiment != name:
                raise ExperimentError(f"trial {trial_name!r} is not of experiment {name!r}")
            log = TrialFiles(self._home, name, trial_name).log
            logs = (shell_log(log), log)
            if follow:
                yield from follow_log(store, trial_name, *logs)
            else:
                for one in logs:
                    yield from read_output(one)

    # -- what upstream's client has no need of ---------------------------------------------------------------------

    def to_dataframe(self, name: str, *, rows: bool = False) -> Any:
        """Return a pandas DataFrame of an experiment: a row a trial, or a row for each that the trials have reported.

        Args:
            name: The experiment.
            rows: Whether the rows of metrics are wanted: columns ``trial``, ``time``, ``metric``, ``value``.

        Raises:
            ExperimentError: A RuntimeError: there is none of this name.
            MissingDependencyError: An ImportError: pandas is missing, which the extra ``data`` has.
        """
        return data_frame(self._record(name, epochs=False), rows=rows)

    def plot(self, name: str, kind: str = "objective", *, metric: str | None = None) -> Any:
        """Return a plotly figure of an experiment, which a notebook shows, and ``write_html`` saves.

        Args:
            name: The experiment.
            kind: ``objective``, ``curves``, ``parallel``, ``slices``, ``importances`` or ``contour``.
            metric: That of the curves; by default the objective.

        Raises:
            ConfigurationError: A ValueError: there is no such kind.
            ExperimentError: A RuntimeError: there is no such experiment, or it cannot be drawn yet.
            MissingDependencyError: An ImportError: plotly is missing, which the extra ``plot`` has.
        """
        from katib_callbacks.pictures.html import figure  # noqa: PLC0415  optional

        return figure(self._record(name), kind, metric)

    def _repr_html_(self) -> str:
        with ExperimentStore(database(self._home)) as store:
            rows = [
                (row.name, verdict(row, trials)[0], len(trials), getattr(best_trial(row.manifest, trials), "value", ""))
                for row in store.experiments()
                for trials in [store.trials(row.name)]
            ]
        return table_html(("Experiment", "State", "Trials", "Best"), rows)

    def _record(self, name: str, *, epochs: bool = True) -> ExperimentRecord:
        with ExperimentStore(database(self._home)) as store:
            return experiment_record(store, self._home, name, epochs=epochs)


def follow_log(store: ExperimentStore, trial: str, *logs: Path) -> Iterator[str]:
    """Yield a trial's output line by line until the trial is over."""
    positions, rests = dict.fromkeys(logs, 0), dict.fromkeys(logs, b"")
    while True:
        is_over = store.trial(trial).state in states.FINAL_TRIAL_STATES
        for log in logs:
            if log.exists():
                with log.open("rb") as file:
                    if file.seek(0, os.SEEK_END) < positions[log]:  # of another attempt, which begins anew
                        positions[log], rests[log] = 0, b""
                    file.seek(positions[log])
                    data = file.read()
                positions[log] += len(data)
                *lines, rests[log] = (rests[log] + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
        if is_over:
            break
        time.sleep(_FOLLOW_INTERVAL_S)
    yield from (rest.decode(errors="replace") for rest in rests.values() if rest)
