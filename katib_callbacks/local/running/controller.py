"""The loop that runs one experiment: asks the algorithm, starts trials, waits for their ends, decides when it is over.

One thread. It sleeps until a process ends, a deadline passes or it is woken, and looks each second whether another
process changed the budget. Each decision is committed before it is acted upon (see ``store``).
"""

import logging
import os
import secrets
import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.plan import Budget, resolve
from katib_callbacks.local.running.db_manager_process import DBManagerProcess
from katib_callbacks.local.running.suggestion import Suggestion
from katib_callbacks.local.state import states
from katib_callbacks.local.state.states import with_condition
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow
from katib_callbacks.local.trainer.experiment import TRAINER_STATUS
from katib_callbacks.local.trainer.status_server import TrainerStatusServer
from katib_callbacks.local.trials.attempt import Attempt, Receiver, Verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.gpus import GPUs, visible_gpus
from katib_callbacks.local.trials.orphans import end_orphans

BUDGET_CHECK_INTERVAL_S = 1.0
"""How soon a budget that another process has edited, or a deletion, is noticed."""

_logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """A change that an onlooker wants to know; ``trial`` is None for one of the experiment."""

    trial: TrialRow | None
    state: str
    message: str


class Controller:
    """Runs one stored experiment from wherever it stands, with the store to itself and its caller's lock held."""

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
        self._plan = resolve(self._row.manifest)
        self._budget = Budget.of(self._row.manifest)
        self._gpus_wanted = self._plan.template.gpus(self._row.gpus_per_trial)
        self._gpus = GPUs(visible_gpus())
        self._running: dict[str, Attempt] = {}
        self._pending: list[TrialRow] = []
        self._stored = 0
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._has_waited_for_gpus = False
        self._is_stopping = False
        self._receiver: Receiver = (
            TrainerStatusServer(self._plan.template.namespace)
            if self._plan.collector == TRAINER_STATUS
            else DBManagerProcess(f"sqlite:///{store.path.absolute()}", lock)  # it starts while Optuna is imported
        )

    def stop(self) -> None:
        """Make :meth:`run` end soon, from any thread: running trials are ended, to be started again on resume."""
        self._is_stopping = True
        with suppress(OSError):  # full, or closed: it is awake, or over
            os.write(self._wake_writer, b"x")

    def run(self) -> str:
        """Run until the experiment is over or :meth:`stop`, and return its state.

        Where the store can no longer be read or written, trials are ended, and a later run goes on.
        """
        try:
            self._recover()
            return self._loop()
        finally:
            for attempt in self._running.values():
                attempt.processes.kill()
            self._gpus.close()
            self._receiver.stop()
            self._selector.close()
            for descriptor in (self._wake_reader, self._wake_writer):
                os.close(descriptor)

    def _loop(self) -> str:
        self._warn_of_gpus()
        if not self._is_over:
            self._set_state(states.RUNNING, "ExperimentRunning", "Experiment is running")
        version: int | None = None  # it may have been deleted before this process began to look
        while not self._is_stopping:
            self._start_trials()
            if self._is_over and not self._running:
                return self._row.state
            for attempt in self._ended():
                self._finish(attempt)
            self._receiver.revive()  # running trials wait for it
            if version != (version := self._store.version()):  # also after each write of the DB manager
                row = self._store.experiment(self._row.name)
                self._is_stopping |= row.is_deleted
                if (row.manifest, row.conditions) != (self._row.manifest, self._row.conditions):
                    self._go_by(row)
        self._put_back()
        return self._row.state

    def _warn_of_gpus(self) -> None:
        wanted, name = sum(self._gpus_wanted), self._row.name
        if wanted > self._gpus.count:
            _logger.warning("experiment %s: a trial asks for %d GPUs; here it has %d", name, wanted, self._gpus.count)
        if self._gpus.count and self._budget.parallel > 1 and not wanted:
            _logger.warning(
                "experiment %s: its trials ask for no GPU, so that all %d at a time use the same; set "
                'resources.limits["nvidia.com/gpu"] or --gpus-per-trial',
                name,
                self._budget.parallel,
            )

    @property
    def _is_over(self) -> bool:
        """Whether the verdict is there; trials that run then go on to their ends and count, as in Katib."""
        return self._row.state in states.FINAL_EXPERIMENT_STATES

    def _judge(self) -> None:
        """Take note of the verdict, or of a restart after it."""
        if self._row.state == states.RESTARTING:
            self._set_state(states.RUNNING, "ExperimentRunning", "Experiment is running")
        if not self._is_over:
            has_unfinished = bool(self._running or self._pending)
            verdict = self._suggestion.verdict(self._budget, has_unfinished=has_unfinished)
            if verdict is not None:
                self._set_state(*verdict)

    def _ended(self) -> list[Attempt]:
        """Sleep until something happens, and take note of it; returns the attempts that are over."""
        attempts = list(self._running.values())
        wake_ups = [at for one in attempts if (at := one.processes.wake_at_s) is not None]
        timeout_s = min([BUDGET_CHECK_INTERVAL_S, *(at - time.monotonic() for at in wake_ups)])
        if any(attempt.is_behind for attempt in attempts):
            timeout_s = 0.0
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            if key.data is None:
                os.read(key.fd, 4096)
                continue
            self._selector.unregister(key.fd)
            self._running[key.data].processes.ended(key.fd)
        for attempt in attempts:
            attempt.processes.tick()
            if rows := attempt.collect():
                self._store.add_rows(attempt.trial.name, rows)
        return [self._running.pop(attempt.trial.name) for attempt in attempts if attempt.is_over]

    # -- the beginning of a trial ----------------------------------------------------------------------------------

    def _start_trials(self) -> None:
        """Start as many trials as there may be, and ask for the verdict before each."""
        while not self._is_stopping:
            self._judge()
            if len(self._running) >= self._budget.parallel:
                return
            active = len(self._running) + len(self._pending)
            if not self._pending and (self._is_over or not self._suggestion.has_room(self._budget, active)):
                return
            gpus = self._gpus.take(self._gpus_wanted) if self._gpus.count and sum(self._gpus_wanted) else []
            if gpus is None:
                if not self._running and not self._has_waited_for_gpus:
                    self._has_waited_for_gpus = True
                    _logger.warning("experiment %s: waits for GPUs, which other experiments have", self._row.name)
                return
            trial = self._pending.pop(0) if self._pending else self._new_trial()
            if trial is None or not self._start(trial, gpus):
                self._gpus.give_back(gpus)
            if trial is None:
                self._judge()
                return

    def _new_trial(self) -> TrialRow | None:
        number, asked = self._suggestion.asked, self._suggestion.events
        try:
            point = self._suggestion.ask()
        except ExperimentError as error:
            self._set_state(states.FAILED, "ExperimentFailed", str(error))
            return None
        if point is None:
            return None
        assignments = {one.name: one.assignment(point[one.name]) for one in self._plan.parameters}
        own_name = self._row.name if self._row.is_train_job else None
        return TrialRow.created(self._row.name, number, assignments, point, asked, name=own_name)

    def _start(self, trial: TrialRow, gpus: list[list[str]]) -> bool:
        """Start a trial; returns whether it runs."""
        changes: dict[str, Any] = {
            "state": states.RUNNING,
            "attempts": [*trial.attempts, secrets.token_hex(8)],
            "conditions": with_condition(trial.conditions, states.RUNNING, "TrialRunning", "Trial is running"),
            "started_s": time.time(),
        }
        started = replace(trial, **changes)
        if trial.number < self._stored:
            self._store.update_trial(trial.name, **changes)
        else:
            self._store.add_trial(started)  # made and begun in one commit: nobody could see it between
            self._stored = trial.number + 1
        self._on_event(Event(started, self._row.state, "is running"))
        try:
            attempt = Attempt(self._plan, self._row, started, home=self._home, receiver=self._receiver, gpus=gpus)
        except (OSError, ValueError) as error:  # ValueError: of what the parameters make of the template
            message = f"Trial has failed. Job message: it could not be started: {error}"
            self._conclude(started, Verdict(states.FAILED, "TrialFailed", message))
            return False
        self._running[trial.name] = attempt
        for descriptor in attempt.processes.descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, trial.name)
        return True

    # -- the end of a trial ----------------------------------------------------------------------------------------

    def _finish(self, attempt: Attempt) -> None:
        self._gpus.give_back(attempt.gpus)
        with self._store.values(attempt.trial.name) as values:
            verdict = attempt.verdict(values, self._store.stop_reason(attempt.trial.name))
        self._conclude(attempt.trial, verdict)
        if verdict.state in {states.SUCCEEDED, states.EARLY_STOPPED}:
            attempt.clean_up()

    def _conclude(self, trial: TrialRow, verdict: Verdict) -> None:
        """Put a trial into its final state, and tell the algorithm."""
        changes: dict[str, Any] = {
            "state": verdict.state,
            "observation": verdict.observation,
            "conditions": with_condition(trial.conditions, verdict.state, verdict.reason, verdict.message),
            "completed_s": time.time(),
            "told": self._suggestion.events,
            "value": verdict.value,
        }
        self._store.update_trial(trial.name, rows=verdict.rows, **changes)
        try:
            self._suggestion.tell(trial.number, verdict.state, verdict.value)
        except ExperimentError as error:
            self._set_state(states.FAILED, "ExperimentFailed", str(error))
        self._on_event(Event(replace(trial, **changes), self._row.state, verdict.message))

    def _put_back(self) -> None:
        """Ask all trials to end, make them after their grace period, and leave them for a later run."""
        stopped = [attempt.trial for attempt in self._running.values()]
        for attempt in self._running.values():
            attempt.processes.end("the experiment is stopped")
        while self._running:
            self._ended()
        for trial in stopped:
            conditions = with_condition(trial.conditions, states.RUNNING, "TrialRunning", "Trial is stopped")
            self._store.update_trial(trial.name, state=states.CREATED, conditions=conditions[:-1])

    def _recover(self) -> None:
        """Take up the trials that are stored: end what a killed runner left, clear its rows, replay the algorithm."""
        trials = self._store.trials(self._row.name)
        unfinished = [trial for trial in trials if trial.state not in states.FINAL_TRIAL_STATES]
        end_orphans(
            [mark for trial in unfinished for mark in trial.attempts],
            [TrialFiles(self._home, trial.experiment, trial.name).logs for trial in unfinished if trial.attempts],
        )
        for trial in unfinished:
            if trial.attempts:
                self._store.delete_rows(trial.name)
            if trial.state == states.RUNNING:
                self._store.update_trial(trial.name, state=states.CREATED)
        self._pending = unfinished
        self._suggestion = Suggestion(self._plan, trials, seed=self._row.seed)
        self._stored = len(trials)

    def _set_state(self, kind: str, reason: str, message: str) -> None:
        conditions = with_condition(self._row.conditions, kind, reason, message)
        now_s = time.time()
        is_final = kind in states.FINAL_EXPERIMENT_STATES
        times = {"completed_s": now_s} if is_final else {"started_s": self._row.started_s or now_s, "completed_s": None}
        self._store.update_experiment(self._row.name, conditions=conditions, **times)
        self._go_by(self._store.experiment(self._row.name))
        self._on_event(Event(None, kind, message))

    def _go_by(self, row: ExperimentRow) -> None:
        """Take the experiment as it is stored now; its budget may have been edited meanwhile."""
        self._row = row
        self._budget = Budget.of(row.manifest)
