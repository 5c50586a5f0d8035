"""Judge: answers trials that ask at an epoch's end, many in one transaction, each answer stored before it is given."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from katib_callbacks.db_manager.service.validation import InvalidRequestError
from katib_callbacks.db_manager.stopping import records
from katib_callbacks.db_manager.stopping.policies import asha_places, asha_stops, median_stops, rung_of
from katib_callbacks.db_manager.stopping.records import RUNNING, STOPPED, SUCCEEDED, Trial, TrialKey
from katib_callbacks.db_manager.store.errors import UnstorableError
from katib_callbacks.db_manager.store.group_commit import GroupCommit, Work
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import name_problem
from katib_callbacks.settings.early_stopping import Policy, parse_policy

MAX_EPOCHS = 10_000
"""In one question: those that a trial could not hand in while the server was away."""

MAX_STEP = 2**53
MAX_POLICY_CHARACTERS = 1_000

_logger = logging.getLogger(__name__)


class Question(Work):
    """A trial's question at the end of an epoch; ``answer`` is whether to stop, and why."""

    __slots__ = ("answer", "epochs", "has_ended", "key", "policy", "run")

    def __init__(
        self, key: TrialKey, policy: Policy, run: str, epochs: Sequence[tuple[int, float]], *, has_ended: bool
    ) -> None:
        super().__init__(len(epochs))
        self.key = key
        self.policy = policy
        self.run = run
        self.epochs = epochs
        self.has_ended = has_ended
        self.answer = (False, "")


class Judge:
    """Early stopping on a store. Thread-safe; has one thread from the first question on, until it is closed."""

    def __init__(self, store: ObservationLogStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._writer: GroupCommit[Question] | None = None
        store.also_deleted.append(records.forget)

    def ask(self, question: Question) -> tuple[bool, str]:
        """Return whether the trial is to stop, and why, when that is on disk; raises as the store's methods do."""
        with self._lock:
            if self._writer is None:
                self._store.transact(records.create, lock="initialization")
                self._writer = GroupCommit(self._answer, refusals=(UnstorableError,))
            writer = self._writer
        writer.submit(question)
        question.wait()
        return question.answer

    def last_asked(self) -> dict[str, float]:
        """Return when trials last asked, by their names: seconds since the epoch; raises as :meth:`ask` does."""
        return self._store.transact(records.last_asked)

    def close(self) -> None:
        """Answer what is queued, and end the thread. May be called twice."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()

    def _answer(self, questions: Sequence[Question]) -> None:
        self._store.transact(lambda connection: _answer_all(connection, questions))


def read_question(request: Any, namespace: str | None) -> Question:
    """Return the question of a ``JudgeRequest``; InvalidRequestError if it is none."""
    trial_name, experiment = request.trial_name, request.experiment or experiment_of(request.trial_name)
    for field, name in (("trial_name", trial_name), ("experiment", experiment)):
        problem = name_problem(name)
        if problem:
            raise InvalidRequestError(f"{field} {problem}")
    if not 0 < len(request.run) <= records.MAX_RUN_CHARACTERS or not request.run.isalnum():
        raise InvalidRequestError(f"run must have 1 to {records.MAX_RUN_CHARACTERS} letters or digits")
    if len(request.epochs) > MAX_EPOCHS:
        raise InvalidRequestError(f"there are {len(request.epochs)} epochs; {MAX_EPOCHS} may come at once")
    epochs, last = [], 0
    for epoch in request.epochs:
        if not last < epoch.step <= MAX_STEP or not math.isfinite(epoch.value):
            raise InvalidRequestError("the steps of epochs must be positive and increase, and their values be finite")
        last = epoch.step
        epochs.append((epoch.step, epoch.value))
    if not epochs and not request.has_ended:
        raise InvalidRequestError("there is no epoch to judge")
    key = TrialKey(namespace or "", experiment, trial_name)
    return Question(key, _policy(request.policy), request.run, epochs, has_ended=request.has_ended)


def experiment_of(trial_name: str) -> str:
    """Return the experiment of a trial by its name, as Katib makes it: what stands before the last hyphen."""
    return trial_name.rpartition("-")[0] or trial_name


@lru_cache(maxsize=256)
def _policy(text: str) -> Policy:
    if len(text) > MAX_POLICY_CHARACTERS:
        raise InvalidRequestError(f"policy has more than {MAX_POLICY_CHARACTERS} characters")
    try:
        policy = parse_policy("policy", text)
    except ConfigurationError as error:
        raise InvalidRequestError(str(error)) from error
    if policy.objective_type is None:
        raise InvalidRequestError("policy: type must be minimize or maximize")
    return policy


def _answer_all(connection: Connection, questions: Sequence[Question]) -> None:
    """Answer questions in their order, those of one trial in rounds of one each."""
    rest = list(questions)
    while rest:
        first = {question.key: question for question in reversed(rest)}
        _Round(connection).answer(list(first.values()))
        rest = [question for question in rest if first[question.key] is not question]


class _Round:
    """Questions of different trials, and what is read for them: each thing once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._succeeded: dict[tuple[str, str], tuple[int, float]] = {}
        self._at_rung: dict[tuple[str, str, int], list[float]] = {}
        self._values: list[tuple[TrialKey, int, float]] = []
        self._rungs: list[tuple[TrialKey, int, int, float]] = []

    def answer(self, questions: Sequence[Question]) -> None:
        """Answer, and store what was said and answered."""
        found = records.find(self._connection, [question.key for question in questions])
        trials = {question.key: self._judge(question, found.get(question.key)) for question in questions}
        records.store(
            self._connection,
            new={key: trial for key, trial in trials.items() if key not in found},
            known={key: trial for key, trial in trials.items() if key in found},
            values=self._values,
            rungs=self._rungs,
        )

    def _judge(self, question: Question, trial: Trial | None) -> Trial:
        key, policy = question.key, question.policy
        if trial is None or trial.run != question.run:
            trial = Trial(question.run) if trial is None else self._begin_anew(question)
        trial.asked_s = time.time()
        for step, value in question.epochs:
            if trial.state != RUNNING or step <= trial.step:  # asked before: the answer stands
                continue
            _take(trial, policy, step, value)
            self._values.append((key, step, value))
            reason = _RULES[policy.name](self, key, policy, trial, value)
            if reason is not None:
                trial.state, trial.reason = STOPPED, reason
                _logger.info("trial %r of experiment %r is stopped: %s", key.trial_name, key.experiment, reason)
        if question.has_ended and trial.state == RUNNING:
            trial.state = SUCCEEDED
        question.answer = (trial.state == STOPPED, trial.reason)
        return trial

    def _begin_anew(self, question: Question) -> Trial:
        """Return a trial as a new run of it finds it: with what was handed in of epochs before its first one."""
        trial = Trial(question.run)
        first = question.epochs[0][0] if question.epochs else 1
        for step, value in records.go_back(self._connection, question.key, first):
            _take(trial, question.policy, step, value)
        if question.policy.name == "asha" and trial.step:
            trial.rung = rung_of(question.policy, trial.step) or 0
        return trial

    def median(self, key: TrialKey, policy: Policy, trial: Trial, _value: float) -> str | None:
        """Return on what grounds medianstop ends a trial; None if it does not."""
        place = key.namespace, key.experiment
        if trial.reported < policy.options["start_step"]:
            return None
        if place not in self._succeeded:
            self._succeeded[place] = records.succeeded(self._connection, *place)
        trials, mean = self._succeeded[place]
        if not median_stops(policy, best=trial.best, reported=trial.reported, trials=trials, mean=mean):
            return None
        return f"{trial.best:.6g} at epoch {trial.step}, median of {trials} trials is {mean:.6g} (medianstop)"

    def asha(self, key: TrialKey, policy: Policy, trial: Trial, value: float) -> str | None:
        """Return on what grounds asha ends a trial; None if it does not."""
        rung = rung_of(policy, trial.step)
        if rung is None or rung <= trial.rung:
            return None
        trial.rung = rung
        self._rungs.append((key, rung, trial.step, value))
        place = key.namespace, key.experiment, rung
        if place not in self._at_rung:
            self._at_rung[place] = records.at_rung(self._connection, *place)
        values = self._at_rung[place]
        values.append(value)
        if not asha_stops(policy, value, values):
            return None
        best = asha_places(policy, len(values))
        where = f"{value:.6g} at epoch {trial.step}"
        return f"{where}, not among the best {best} of {len(values)} trials at rung {rung} (asha)"


_RULES: dict[str, Callable[[_Round, TrialKey, Policy, Trial, float], str | None]] = {
    "medianstop": _Round.median,
    "asha": _Round.asha,
}


def _take(trial: Trial, policy: Policy, step: int, value: float) -> None:
    start_step = policy.options.get("start_step", 0)
    trial.take(step, value, start_step=start_step, is_maximized=policy.is_maximized)
