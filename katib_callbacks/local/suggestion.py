"""An experiment's books: what the algorithm was asked and told, how trials ended, and whether that is enough."""

from collections.abc import Callable, Iterable
from typing import Any

from katib_callbacks.local import states
from katib_callbacks.local.algorithms import optuna
from katib_callbacks.local.algorithms.optuna import Point
from katib_callbacks.local.api.models import V1beta1ExperimentSpec
from katib_callbacks.local.observation_log import objective_text, objective_value
from katib_callbacks.local.plan import ResolvedExperiment
from katib_callbacks.local.store import TrialRow

Verdict = tuple[str, str, str]
"""The store, reason and message of an experiment that is over."""


class Suggestion:
    """Counts and the algorithm, made up from the trials that are stored.

    Args:
        feasible: The experiment.
        trials: Those that are stored, in the order in which they were made.
        seed: For an algorithm without ``random_state``.
    """

    def __init__(self, feasible: ResolvedExperiment, trials: Iterable[TrialRow], *, seed: int) -> None:
        self._feasible = feasible
        self._counts = dict.fromkeys(states.FINAL_TRIAL_STATES, 0)
        self._has_reached_goal = False
        self.is_exhausted = False
        """Whether the algorithm has no further point."""
        self.asked = 0
        """How many trials the algorithm was asked for, and so the next one's number."""
        self.events = 0
        """How many questions and answers there were: the number of the next one."""
        self._algorithm = optuna.make(
            feasible.algorithm, feasible.parameters, seed=seed, maximize=feasible.is_maximized
        )
        self._replay(list(trials))

    @property
    def completed(self) -> int:
        """How many trials are in a final state."""
        return sum(self._counts.values())

    def ask(self) -> Point | None:
        """Return the next trial's point; None if there is none. The question counts when the trial is stored."""
        point = None if self.is_exhausted else self._algorithm.ask()
        if point is None:
            self.is_exhausted = True
            return None
        self.asked += 1
        self.events += 1
        return point

    def value(self, observation: list[dict[str, str]] | None) -> float | None:
        """Return the objective of an observation, as far as an algorithm can learn from it."""
        if observation is None:
            return None
        return objective_value(objective_text(observation, self._feasible.objective, self._feasible.strategy))

    def tell(self, number: int, final: str, value: float | None) -> None:
        """Take the final state of a trial, which is stored by now."""
        self.events += 1
        self._account(final, value)
        self._algorithm.tell(number, value)

    def verdict(self, spec: V1beta1ExperimentSpec, *, has_unfinished: bool) -> Verdict | None:
        """Say whether the experiment is over, asking in Katib's order (experiment/util/status_util.go).

        Args:
            spec: With the budget of now.
            has_unfinished: Whether trials run or wait to run.
        """
        failed = self._counts[states.FAILED] + self._counts[states.METRICS_UNAVAILABLE]
        has_ended = "Experiment has succeeded because "
        if self._has_reached_goal:
            return states.SUCCEEDED, "ExperimentGoalReached", f"{has_ended}Objective goal has reached"
        if spec.max_failed_trial_count is not None and failed > spec.max_failed_trial_count:
            message = "Experiment has failed because max failed count has reached"
            return states.FAILED, "ExperimentFailed", message
        if spec.max_trial_count is not None and self.completed >= spec.max_trial_count:
            return states.SUCCEEDED, "ExperimentMaxTrialsReached", f"{has_ended}max trial count has reached"
        if self.is_exhausted and not has_unfinished:
            message = f"{has_ended}suggestion service has reached the end"
            return states.SUCCEEDED, "ExperimentSuggestionEndReached", message
        return None

    def _account(self, final: str, value: float | None) -> None:
        self._counts[final] += 1
        goal = self._feasible.goal
        if value is not None and goal is not None:
            self._has_reached_goal |= value >= goal if self._feasible.is_maximized else value <= goal

    def _replay(self, trials: list[TrialRow]) -> None:
        """Put the stored questions and answers to the algorithm, in their order."""
        steps: dict[int, tuple[Callable[[TrialRow], Any], TrialRow]] = {}
        for trial in trials:
            steps[trial.asked] = self._ask_again, trial
            if trial.told is not None:
                steps[trial.told] = self._tell_again, trial
        for number in sorted(steps):
            step, trial = steps[number]
            step(trial)
        self.asked = len(trials)
        self.events = max(steps, default=-1) + 1

    def _ask_again(self, trial: TrialRow) -> None:
        if self._algorithm.ask() != trial.point:  # another version of Optuna draws otherwise
            self._algorithm.correct(trial.number, trial.point)

    def _tell_again(self, trial: TrialRow) -> None:
        self._account(trial.state, trial.value)
        self._algorithm.tell(trial.number, trial.value)
