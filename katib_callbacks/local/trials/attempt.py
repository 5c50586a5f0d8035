"""One attempt at a trial, from its launch to its verdict."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from katib_callbacks import settings
from katib_callbacks.local import states
from katib_callbacks.local.collectors.stdout import parse_output, read_output
from katib_callbacks.local.observation import (
    UNAVAILABLE,
    UNAVAILABLE_TIME,
    Observation,
    objective_text,
    objective_value,
    reduce,
)
from katib_callbacks.local.plan import ResolvedExperiment
from katib_callbacks.local.store import TrialRow
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.process import ATTEMPT_VARIABLE, RunningTrial, free_port
from katib_callbacks.metrics import StoredMetricLog


@dataclass(frozen=True)
class Verdict:
    """How a trial has ended.

    Args:
        state: Its final state.
        reason: Of the condition, as Katib's.
        message: Of the condition.
        observation: What its rows come to; None where they do not count.
        value: The objective, as far as an algorithm can learn from it.
        rows: What is to be added to the rows that the trial has pushed.
    """

    state: str
    reason: str
    message: str
    observation: Observation | None = None
    value: float | None = None
    rows: tuple[StoredMetricLog, ...] = ()


class Attempt:
    """The processes of a trial that was launched, and what becomes of them.

    Args:
        plan: The experiment's.
        trial: Which trial; the last of its attempts is this one.
        files: The trial's.
        folder: Where its commands run.
        db_manager_address: Where it reports.

    Raises:
        OSError: A process could not be started; none of them runs then.
    """

    def __init__(
        self, plan: ResolvedExperiment, trial: TrialRow, files: TrialFiles, *, folder: Path, db_manager_address: str
    ) -> None:
        self._plan = plan
        self._files = files
        self.trial = trial
        files.folder.mkdir(parents=True, exist_ok=True)
        files.log.write_bytes(b"")  # of this attempt alone
        self.processes = RunningTrial(
            plan.template.plan(trial.name, trial.assignments, free_port=free_port),
            own={
                settings.TRIAL_NAME: trial.name,
                settings.DB_MANAGER_ADDRESS: db_manager_address,
                ATTEMPT_VARIABLE: trial.attempts[-1],
            },
            folder=folder,
            log=files.log,
        )

    def verdict(self, pushed: Iterable[StoredMetricLog]) -> Verdict:
        """Return how the trial, whose processes have ended, has ended itself.

        Args:
            pushed: The rows that it has reported.
        """
        plan = self._plan
        rows: list[StoredMetricLog] = []
        if plan.collector == "StdOut":
            rows = parse_output(read_output(self._files.log), plan.metrics, plan.filters, datetime.now(timezone.utc))
        failure = self.processes.failure()
        if failure is not None:
            reason, message = failure
            return Verdict(
                states.FAILED,
                f"TrialFailed. Job reason: {reason}",
                f"Trial has failed. Job message: {message}",
                rows=tuple(rows),
            )
        observation = reduce([*pushed, *rows], plan.metrics)
        if next(one["latest"] for one in observation if one["name"] == plan.objective) == UNAVAILABLE:
            rows.append(StoredMetricLog(plan.objective, UNAVAILABLE, UNAVAILABLE_TIME))
            message = f"Metrics are not available: {plan.objective!r} was not reported"
            return Verdict(states.METRICS_UNAVAILABLE, "MetricsUnavailable", message, observation, rows=tuple(rows))
        value = objective_value(objective_text(observation, plan.objective, plan.strategy))
        return Verdict(states.SUCCEEDED, "TrialSucceeded", "Trial has succeeded", observation, value, tuple(rows))

    def clean_up(self) -> None:
        """Remove the folder of a trial that has succeeded, unless it is to be kept."""
        if not self._plan.template.retain:
            shutil.rmtree(self._files.folder, ignore_errors=True)
