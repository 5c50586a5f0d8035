"""The loop that runs one experiment: asks the algorithm, starts trials, waits for their ends, decides when it is over.

One thread. It sleeps until a process ends, a deadline passes, somebody wakes it, or a second is over, in which it looks
whether another process has changed the budget. Each decision is committed before it is acted upon (see ``state``).
"""

import os
import secrets
import selectors
import shutil
import string
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from katib_callbacks import settings
from katib_callbacks.local import states
from katib_callbacks.local.api.models import V1beta1Experiment
from katib_callbacks.local.db_manager_process import DBManagerProcess
from katib_callbacks.local.observation_log import (
    UNAVAILABLE,
    ObservationLog,
    parse_output,
    read_output,
    reduce,
)
from katib_callbacks.local.plan import ResolvedExperiment, check
from katib_callbacks.local.states import with_condition
from katib_callbacks.local.store import ExperimentStore, TrialRow
from katib_callbacks.local.suggestion import Suggestion
from katib_callbacks.local.trials.orphans import end_orphans
from katib_callbacks.local.trials.process import ATTEMPT_VARIABLE, RunningTrial, free_port
from katib_callbacks.local.trials.template import plan, render

BUDGET_CHECK_INTERVAL_S = 1.0
"""How soon a budget that another process has edited, or a deletion, is noticed."""

_NAME_CHARACTERS = string.ascii_lowercase + string.digits
_SUFFIX_CHARACTERS = 8  # as Katib's


@dataclass(frozen=True)
class Event:
    """Something that a person who looks on wants to know.

    Args:
        trial: The trial as it is now; None for a change of the experiment.
        state: The experiment's state.
        message: What happened, as a sentence.
    """

    trial: TrialRow | None
    state: str
    message: str


def trial_folder(home: Path, experiment: str, trial: str) -> Path:
    """Return where a trial works and keeps its files."""
    return home / experiment / trial


def trial_log(home: Path, experiment: str, trial: str) -> Path:
    """Return where the output of a trial's primary process lies."""
    return home / experiment / f"{trial}.log"


class Controller:
    """Runs one experiment that is stored, from wherever it stands. Whoever makes it holds the experiment's lock.

    Args:
        store: The state; for this object alone as long as it runs.
        home: The folder of the state and of the trials.
        name: Which experiment.
        lock: The descriptor of the lock, see :class:`DBManagerProcess`.
        on_event: Called for each change.

    Raises:
        ExperimentError: There is no such experiment.
    """

    def __init__(
        self,
        store: ExperimentStore,
        home: Path,
        name: str,
        *,
        lock: int,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._home = home.absolute()
        self._on_event = on_event
        self._row = store.experiment(name)
        self._load_spec()
        self._running: dict[str, RunningTrial] = {}
        self._pending: list[TrialRow] = []
        self._stored = 0
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._is_stopping = False
        self._db = DBManagerProcess(f"sqlite:///{store.path.absolute()}", lock)  # it starts while Optuna is imported
        self._log: ObservationLog

    def stop(self) -> None:
        """Make :meth:`run` end soon, from any thread: running trials are ended, to be started again on resume."""
        self._is_stopping = True
        with suppress(OSError):  # full, or closed: it is awake, or over
            os.write(self._wake_writer, b"x")

    def run(self) -> str:
        """Run until the experiment is over or :meth:`stop`, and return its state.

        Raises:
            KatibCallbacksError: The state or the observation log can no longer be read or written. Running trials are
                ended; a later run goes on.
        """
        try:
            with ObservationLog(self._db.address, self._db.revive) as self._log:
                self._recover()
                return self._loop()
        finally:
            for trial in self._running.values():
                trial.kill()
            self._db.stop()
            self._selector.close()
            for descriptor in (self._wake_reader, self._wake_writer):
                os.close(descriptor)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _loop(self) -> str:
        if self._row.state not in states.FINAL_EXPERIMENT_STATES:
            self._set_state(states.RUNNING, "ExperimentRunning", "Experiment is running")
        version = self._store.version()
        while not self._is_stopping:
            verdict = self._books.verdict(self._spec, has_unfinished=bool(self._running or self._pending))
            if verdict is not None:
                self._kill_all("the experiment is over")
                self._set_state(*verdict)
                return verdict[0]
            self._start_trials()
            self._wait()
            if version != (version := self._store.version()):  # also after each write of the DB manager
                row = self._store.experiment(self._row.name)
                self._is_stopping |= row.is_deleted
                if row.experiment != self._row.experiment:
                    self._row = row
                    self._load_spec()
        self._put_back()
        return self._row.state

    def _wait(self) -> None:
        """Sleep until something happens, and take note of it."""
        wake_ups = [at for trial in self._running.values() if (at := trial.wake_at_s) is not None]
        timeout_s = min([BUDGET_CHECK_INTERVAL_S, *(at - time.monotonic() for at in wake_ups)])
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            if key.data is None:
                os.read(key.fd, 4096)
                continue
            trial = self._running[key.data]
            self._selector.unregister(key.fd)
            trial.ended(key.fd)
            if trial.is_over:
                self._finish(self._running.pop(key.data))
        for trial in self._running.values():
            trial.tick()
        if self._db.has_ended:  # running trials wait for it
            self._db.revive()

    # -- the beginning of a trial ----------------------------------------------------------------------------------

    def _start_trials(self) -> None:
        while len(self._running) < (self._spec.parallel_trial_count or 1):
            budget = self._spec.max_trial_count
            if budget is not None and self._books.completed + len(self._running) >= budget:
                return
            trial = self._pending.pop(0) if self._pending else self._new_trial()
            if trial is None:
                return
            self._start(trial)

    def _new_trial(self) -> TrialRow | None:
        number, asked = self._books.asked, self._books.events
        point = self._books.ask()
        if point is None:
            return None
        now_s = time.time()
        suffix = "".join(secrets.choice(_NAME_CHARACTERS) for _ in range(_SUFFIX_CHARACTERS))
        return TrialRow(
            name=f"{self._row.name}-{suffix}",
            experiment=self._row.name,
            number=number,
            assignments={one.name: one.assignment(point[one.name]) for one in self._feasible.parameters},
            point=dict(point),
            asked=asked,
            told=None,
            value=None,
            state=states.CREATED,
            attempts=[],
            observation=None,
            conditions=[states.condition(states.CREATED, "TrialCreated", "Trial is created", now_s)],
            created_s=now_s,
            started_s=None,
            completed_s=None,
        )

    def _start(self, trial: TrialRow) -> None:
        mark = secrets.token_hex(8)
        conditions = with_condition(trial.conditions, states.RUNNING, "TrialRunning", "Trial is running")
        started = TrialRow(
            **{
                **trial.__dict__,
                "state": states.RUNNING,
                "attempts": [*trial.attempts, mark],
                "conditions": conditions,
                "started_s": time.time(),
            }
        )
        if trial.number < self._stored:
            changed = ("state", "attempts", "conditions", "started_s")
            self._store.update_trial(trial.name, **{column: getattr(started, column) for column in changed})
        else:
            self._store.add_trial(started)  # made and begun in one commit: nobody could see it between
            self._stored = trial.number + 1
        self._report(started, "is running")
        failure = self._launch(started, mark)
        if failure is not None:
            self._conclude(started, states.FAILED, "TrialFailed", f"Trial has failed. Job message: {failure}", None)

    def _launch(self, trial: TrialRow, mark: str) -> str | None:
        """Start a trial's processes; return why that was not possible."""
        template = self._spec.trial_template
        assert template is not None  # noqa: S101  checked when it was read
        run_spec = render(
            template, trial_name=trial.name, namespace=self._feasible.namespace, assignments=trial.assignments
        )
        processes = plan(
            run_spec, primary_container_name=str(template.primary_container_name), port=self._feasible.port(free_port)
        )
        log = trial_log(self._home, trial.experiment, trial.name)
        folder = trial_folder(self._home, trial.experiment, trial.name)
        own = {
            settings.TRIAL_NAME: trial.name,
            settings.DB_MANAGER_ADDRESS: self._db.address,
            ATTEMPT_VARIABLE: mark,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")  # of this attempt alone
            running = RunningTrial(
                trial.name,
                processes,
                own=own,
                folder=folder if self._row.in_trial_folder else self._row.folder,
                log=log,
            )
        except OSError as error:
            return f"it could not be started: {error}"
        self._running[trial.name] = running
        for descriptor in running.descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, trial.name)
        return None

    # -- the end of a trial ----------------------------------------------------------------------------------------

    def _finish(self, running: RunningTrial) -> None:
        trial = self._store.trial(running.name)
        failure = running.failure()
        if self._feasible.collector == "StdOut":
            # Before its success counts, as Katib's sidecar: it reports, and then the pod is done.
            lines = read_output(running.log)
            now = datetime.now(timezone.utc)
            rows = parse_output(lines, self._feasible.metrics, self._feasible.filters, now)
            self._log.replace(trial.name, rows)
        if failure is not None:
            reason, message = failure
            self._conclude(
                trial,
                states.FAILED,
                f"TrialFailed. Job reason: {reason}",
                f"Trial has failed. Job message: {message}",
                None,
            )
            return
        observation = reduce(self._log.get(trial.name), self._feasible.metrics)
        latest = next(one["latest"] for one in observation if one["name"] == self._feasible.objective)
        if latest == UNAVAILABLE:
            self._log.mark_unavailable(trial.name, self._feasible.objective)
            message = f"Metrics are not available: {self._feasible.objective!r} was not reported"
            self._conclude(trial, states.METRICS_UNAVAILABLE, "MetricsUnavailable", message, observation)
            return
        self._conclude(trial, states.SUCCEEDED, "TrialSucceeded", "Trial has succeeded", observation)
        template = self._spec.trial_template
        if template is not None and not template.retain:
            shutil.rmtree(trial_folder(self._home, trial.experiment, trial.name), ignore_errors=True)

    def _conclude(
        self, trial: TrialRow, final: str, reason: str, message: str, observation: list[dict[str, str]] | None
    ) -> None:
        """Put a trial into its final store, and tell the algorithm."""
        value = self._books.value(observation) if final == states.SUCCEEDED else None
        columns: dict[str, Any] = {
            "state": final,
            "observation": observation,
            "conditions": with_condition(trial.conditions, final, reason, message),
            "completed_s": time.time(),
            "told": self._books.events,
            "value": value,
        }
        self._store.update_trial(trial.name, **columns)
        self._books.tell(trial.number, final, value)
        self._report(TrialRow(**{**trial.__dict__, **columns}), message)

    def _kill_all(self, why: str) -> None:
        """End all trials for good."""
        for name, running in list(self._running.items()):
            self._unregister(running)
            running.kill()
            del self._running[name]
            trial = self._store.trial(name)
            self._conclude(trial, states.KILLED, "TrialKilled", f"Trial was killed: {why}", None)
        for trial in self._pending:
            self._conclude(trial, states.KILLED, "TrialKilled", f"Trial was killed: {why}", None)
        self._pending.clear()

    def _put_back(self) -> None:
        """End all trials and leave them for a later run."""
        for name, running in list(self._running.items()):
            self._unregister(running)
            running.kill()
            del self._running[name]
            trial = self._store.trial(name)
            conditions = with_condition(trial.conditions, states.RUNNING, "TrialRunning", "Trial is stopped")
            self._store.update_trial(name, state=states.CREATED, conditions=conditions[:-1])

    def _unregister(self, running: RunningTrial) -> None:
        for descriptor in running.descriptors:
            self._selector.unregister(descriptor)

    # -- where it stands -------------------------------------------------------------------------------------------

    def _load_spec(self) -> None:
        experiment = V1beta1Experiment.from_dict(self._row.experiment)
        assert experiment.spec is not None  # noqa: S101  checked when it was read
        self._spec = experiment.spec
        self._feasible: ResolvedExperiment = check(experiment)

    def _recover(self) -> None:
        """Take up the trials that are stored: end what a killed runner left, clear its rows, replay the algorithm."""
        trials = self._store.trials(self._row.name)
        unfinished = [trial for trial in trials if trial.state not in states.FINAL_TRIAL_STATES]
        end_orphans([mark for trial in unfinished for mark in trial.attempts])
        for trial in unfinished:
            if trial.attempts:
                self._log.delete(trial.name)
            if trial.state == states.RUNNING:
                self._store.update_trial(trial.name, state=states.CREATED)
        self._pending = unfinished
        self._books = Suggestion(self._feasible, trials, seed=self._row.seed)
        self._stored = len(trials)

    def _set_state(self, kind: str, reason: str, message: str) -> None:
        conditions = with_condition(self._row.conditions, kind, reason, message)
        times: Mapping[str, float | None] = {"started_s": self._row.started_s or time.time(), "completed_s": None}
        if kind in states.FINAL_EXPERIMENT_STATES:
            times = {"completed_s": time.time()}
        self._store.update_experiment(self._row.name, conditions=conditions, **times)
        self._row = self._store.experiment(self._row.name)
        self._on_event(Event(None, kind, message))

    def _report(self, trial: TrialRow, message: str) -> None:
        self._on_event(Event(trial, self._row.state, message))
