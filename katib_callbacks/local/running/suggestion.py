"""An experiment's suggestion: what the algorithm was asked and told, how trials ended, and whether that is enough."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from katib_callbacks.errors import ExperimentError, KatibCallbacksError
from katib_callbacks.local.algorithms.settings import make
from katib_callbacks.local.algorithms.space import Point
from katib_callbacks.local.plan import Budget, ResolvedExperiment
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import TrialRow

ExperimentVerdict = tuple[str, str, str]
"""The state, reason and message of an experiment that is over."""

_SUCCEEDED = "Experiment has succeeded because"


class Suggestion:
    """Counts and the algorithm, made up from the stored trials in their order. Raises ExperimentError if it fails."""

    def __init__(self, plan: ResolvedExperiment, trials: Iterable[TrialRow], *, seed: int) -> None:
        self._plan = plan
        self._counts = dict.fromkeys(states.FINAL_TRIAL_STATES, 0)
        self._has_reached_goal = False
        self.is_exhausted = False
        """Whether the algorithm has no further point."""
        self.asked = 0
        """How many trials the algorithm was asked for, and so the next one's number."""
        self.events = 0
        """How many questions and answers there were: the number of the next one."""
        with _failing():
            self._algorithm = make(plan.algorithm, plan.parameters, seed=seed, maximize=plan.is_maximized)
            self._replay(list(trials))

    def has_room(self, budget: Budget, active: int) -> bool:
        """Return whether the budget admits a trial beside the active ones, as Katib counts when it makes trials.

        Trials without metrics do not count before the verdict (experiment_controller.go, ReconcileTrials).
        """
        counted = sum(self._counts.values()) - self._counts[states.METRICS_UNAVAILABLE]
        return budget.max_trials is None or counted + active < budget.max_trials

    def ask(self) -> Point | None:
        """Return the next trial's point; None if there is none. The question counts when the trial is stored."""
        with _failing():
            point = None if self.is_exhausted else self._algorithm.ask()
        if point is None:
            self.is_exhausted = not self._algorithm.is_waiting
            return None
        self.asked += 1
        self.events += 1
        return point

    def tell(self, number: int, final: str, value: float | None) -> None:
        """Take the final state of a trial, which is stored by now."""
        self.events += 1
        self._account(final, value)
        with _failing():
            self._algorithm.tell(number, value)

    def verdict(self, budget: Budget, *, has_unfinished: bool) -> ExperimentVerdict | None:
        """Return how the experiment has ended, if it has, asking in Katib's order (experiment/util/status_util.go).

        One that has used up its trials without a success is Failed here, where Katib says Succeeded.
        """
        failed = self._counts[states.FAILED] + self._counts[states.METRICS_UNAVAILABLE]
        completed = sum(self._counts.values())
        is_used_up = budget.max_trials is not None and completed >= budget.max_trials
        is_at_end = self.is_exhausted and not has_unfinished
        if self._has_reached_goal:
            return states.SUCCEEDED, "ExperimentGoalReached", f"{_SUCCEEDED} Objective goal has reached"
        if budget.max_failed is not None and failed and failed >= budget.max_failed:
            return states.FAILED, "ExperimentFailed", "Experiment has failed because max failed count has reached"
        if (is_used_up or is_at_end) and failed and failed == completed:
            return states.FAILED, "ExperimentFailed", "Experiment has failed because all trials have failed"
        if is_used_up:
            return states.SUCCEEDED, "ExperimentMaxTrialsReached", f"{_SUCCEEDED} max trial count has reached"
        if is_at_end:
            message = f"{_SUCCEEDED} suggestion service has reached the end"
            return states.SUCCEEDED, "ExperimentSuggestionEndReached", message
        return None

    def _account(self, final: str, value: float | None) -> None:
        self._counts[final] += 1
        goal = self._plan.goal
        if value is not None and goal is not None:
            self._has_reached_goal |= value >= goal if self._plan.is_maximized else value <= goal

    def _replay(self, trials: list[TrialRow]) -> None:
        """Put the stored questions and answers to the algorithm, in their order."""
        steps: dict[int, TrialRow] = {}
        for trial in trials:
            steps[trial.asked] = trial
            if trial.told is not None:
                steps[trial.told] = trial
        for number in sorted(steps):
            trial = steps[number]
            if number == trial.asked:
                self._algorithm.recall(trial.point)
            else:
                self._account(trial.state, trial.value)
                self._algorithm.tell(trial.number, trial.value)
        self.asked = len(trials)
        self.events = max(steps, default=-1) + 1


@contextmanager
def _failing() -> Iterator[None]:
    """Turn whatever an algorithm's library raises into an error of ours that names it, as Katib's condition does."""
    try:
        yield
    except KatibCallbacksError:
        raise
    except Exception as error:
        raise ExperimentError(f"Suggestion has failed: {type(error).__name__}: {error}") from error
