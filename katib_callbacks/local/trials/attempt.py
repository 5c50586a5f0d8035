"""One attempt at a trial, from its launch to its verdict."""

import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from katib_callbacks import settings
from katib_callbacks.local.algorithms.pbt import PARENT
from katib_callbacks.local.collectors.file import collect_file
from katib_callbacks.local.collectors.observation import (
    UNAVAILABLE,
    UNAVAILABLE_TIME,
    Observation,
    objective_text,
    objective_value,
    reduce,
)
from katib_callbacks.local.collectors.stdout import OutputReader
from katib_callbacks.local.collectors.tensorflow_event import collect_events
from katib_callbacks.local.plan import ResolvedExperiment
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trainer.experiment import NO_OBJECTIVE, TRAINER_STATUS
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.isolation import local_path, place
from katib_callbacks.local.trials.process import RunningTrial, free_port
from katib_callbacks.local.trials.webhook import wrapped
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.reporting.termination import MAX_BYTES, PREFIX
from katib_callbacks.sinks.collector import told

_SUCCESSES = {
    "Job": ("CompletionsReached", "Reached expected number of succeeded pods"),
    "TrainJob": ("AllJobsCompleted", "jobset completed successfully"),
}
_FAILURES = {"Job": None, "TrainJob": "FailedJobs"}
"""Reasons and messages of the jobs' conditions, by Kubernetes and JobSet; the other kinds' have the kind's name."""

_NOT_FOUND = re.compile(r"No such file or directory: '([^'/][^']*)'")


@dataclass(frozen=True)
class Verdict:
    """How a trial has ended.

    Args:
        observation: What its rows come to; None where they do not count.
        value: The objective, as far as an algorithm can learn from it.
        rows: Rows to add to those that the trial has pushed.
    """

    state: str
    reason: str
    message: str
    observation: Observation | None = None
    value: float | None = None
    rows: tuple[StoredMetricLog, ...] = ()


class Receiver(Protocol):
    """The server that running trials report to."""

    def revive(self) -> None:
        """Start it again, at the same address, if it has ended."""

    def admit(self, trial: str, files: TrialFiles) -> dict[str, str]:
        """Let a trial that begins report; returns the variables by which it does."""

    def dismiss(self, trial: str) -> list[StoredMetricLog]:
        """Return the rows of a trial that has ended, unless they are in the observation log."""

    def stop(self) -> None:
        """End it, and wait for that."""


class Attempt:
    """The processes of a trial's last attempt, and what becomes of them; ``gpus`` are those of each node.

    An OSError means that a process could not be started, and that none of them runs.
    """

    def __init__(
        self,
        plan: ResolvedExperiment,
        row: ExperimentRow,
        trial: TrialRow,
        *,
        home: Path,
        receiver: Receiver,
        gpus: Sequence[Sequence[str]],
    ) -> None:
        self._plan = plan
        self._submit_folder = row.folder
        self._receiver = receiver
        self._files = TrialFiles(home, row.name, trial.name)
        self._files.prepare()
        self.trial = trial
        self.gpus = gpus
        own = {
            **receiver.admit(trial.name, self._files),
            settings.LOCAL_ATTEMPT: trial.attempts[-1],
            settings.TERMINATION_MESSAGE_PATH: str(self._files.termination_log),
            settings.LOCAL_PROGRESS: str(self._files.progress),
        }
        if plan.early_stopping is not None:
            own[settings.EARLY_STOPPING] = plan.early_stopping.text
        mounts = {} if plan.metrics_folder is None else {str(plan.metrics_folder): "katib-metrics"}
        if plan.algorithm.name == "pbt":
            checkpoints = self._files.take_over_checkpoints(trial.number, trial.point.get(PARENT))
            mounts[plan.algorithm.arguments["suggestion_trial_dir"]] = str(checkpoints)
        planned = plan.template.plan(trial.name, trial.assignments, free_port=free_port, mounts=mounts)
        folder = self._files.folder
        placed = place(planned, folder=folder, submit_folder=row.folder, workdir=row.workdir, gpus=gpus)
        self._output = OutputReader(self._files.log, plan.metrics, plan.filters) if plan.collector == "StdOut" else None
        self._is_collected = plan.collector == "Push"
        self._primary = wrapped(planned.processes[0], placed.processes[0], plan.collector, self._files.log)
        placed = replace(placed, processes=(self._primary, *placed.processes[1:]))
        if plan.collector in {"StdOut", "File"}:
            path = self._files.log if plan.collector == "StdOut" else self._metrics_path()
            own[settings.LOCAL_COLLECTOR] = told(plan.collector, str(path), plan.metrics_format or "TEXT", plan.filters)
        self.processes = RunningTrial(placed, own=own, folder=folder, log=self._files.log)

    def collect(self) -> list[StoredMetricLog]:
        """Return the rows that the trial has not pushed, but written, since the last call: its files' in the end."""
        is_ended = self.processes.is_over
        if self._output is not None:
            rows, is_all = self._output.read(datetime.now(timezone.utc), is_ended=is_ended)
            self._is_collected = is_all and is_ended
            return rows
        if self._is_collected or not is_ended:
            return []
        self._is_collected = True
        if self._plan.collector == TRAINER_STATUS:
            return self._receiver.dismiss(self.trial.name)
        path = self._metrics_path()
        if self._plan.collector == "File":
            now = datetime.now(timezone.utc)
            return collect_file(path, self._plan.metrics_format, self._plan.metrics, self._plan.filters, now)
        return collect_events(path, self._plan.metrics)

    def _metrics_path(self) -> Path:
        return local_path(str(self._plan.metrics_path), self._primary, self._files.folder)

    @property
    def is_over(self) -> bool:
        """Whether its processes have ended, and all of their output is collected."""
        return self.processes.is_over and self._is_collected

    @property
    def is_behind(self) -> bool:
        """Whether there is output of processes that have ended to be collected."""
        return self.processes.is_over and not self._is_collected

    def verdict(self, values: Iterable[tuple[str, str]], stopped: str | None = None) -> Verdict:
        """Return how the trial, whose processes have ended, has ended itself.

        ``values`` are its rows by time; ``stopped`` is why the DB manager ended it early, if it did.
        """
        plan, kind = self._plan, self.processes.kind
        failure = self.processes.failure()
        if failure is not None:
            cause, message = failure
            reason = _FAILURES.get(kind, f"{kind}Failed") or cause
            return Verdict(
                states.FAILED,
                f"TrialFailed. Job reason: {reason}",
                f"Trial has failed. Job message: {message}{self._hint(message)}{self._own_words()}",
            )
        succeeded, words = _SUCCESSES.get(kind, (f"{kind}Succeeded", f"{kind} is successfully completed."))
        success = f"TrialSucceeded. Job reason: {succeeded}", f"Trial has succeeded. Job message: {words}"
        if plan.objective == NO_OBJECTIVE:
            return Verdict(states.SUCCEEDED, *success)
        observation = reduce(values, plan.metrics)
        if next(one["latest"] for one in observation if one["name"] == plan.objective) == UNAVAILABLE:
            return Verdict(
                states.METRICS_UNAVAILABLE,
                f"MetricsUnavailable. Job reason: {succeeded}",
                f"Metrics are not available: {plan.objective!r} was not reported{self._own_words()}. "
                f"Job message: {words}",
                observation if any(one["latest"] != UNAVAILABLE for one in observation) else None,
                rows=(StoredMetricLog(plan.objective, UNAVAILABLE, UNAVAILABLE_TIME),),
            )
        value = objective_value(objective_text(observation, plan.objective, plan.strategy))
        if stopped is not None:  # Katib's words (pkg/earlystopping/v1beta1/medianstop/service.py), and the grounds
            message = f"Trial is early stopped: {stopped}"
            return Verdict(states.EARLY_STOPPED, "TrialEarlyStopped", message, observation, value)
        return Verdict(states.SUCCEEDED, *success, observation, value)

    def _own_words(self) -> str:
        """Return the trial's termination message, to follow on others; empty if there is none."""
        with suppress(OSError), self._files.termination_log.open("rb") as file:
            words = " ".join(file.read(MAX_BYTES).decode(errors="replace").split())
            return f"; {words.removeprefix(PREFIX)}" if words else ""
        return ""

    def _hint(self, message: str) -> str:
        """Return what to do about a file that was not found; empty if that is not the fault."""
        missing = _NOT_FOUND.search(message)
        path = Path(missing[1]) if missing else None
        if path is None or not (self._submit_folder / path).exists():
            return ""
        return (
            f"; {path} lies in {self._submit_folder}, and each trial works in a folder of its own: read it from "
            f"${settings.SUBMIT_DIR}, or let all trials work there with --workdir"
        )

    def clean_up(self) -> None:
        """Remove the folder of a trial that has succeeded where the template says ``retain: false``."""
        if self._plan.template.retain is False:
            shutil.rmtree(self._files.folder, ignore_errors=True)
