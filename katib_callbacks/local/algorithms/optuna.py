"""The algorithms that are Optuna's samplers.

A sampler cannot be stored. One that learns only from the trials is made anew for each question, seeded by its number.
The others are asked again for each stored trial, and then stand where the old one stood.
"""

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks.local.algorithms.space import Parameter, Point

_LEARNS_FROM_TRIALS_ALONE = ("random", "tpe", "multivariate-tpe", "bayesianoptimization")

_SEED_BITS = 31

_MAX_GAMMA_TRIALS = 25
"""Hyperopt, whose setting ``gamma`` is, never takes more trials than these for good ones (hyperopt/tpe.py)."""


class OptunaAlgorithm:
    """A sampler, in a study that lies in memory; ``seed`` is taken if ``arguments`` have none."""

    is_waiting = False

    def __init__(
        self, name: str, arguments: Mapping[str, Any], parameters: Sequence[Parameter], *, seed: int, maximize: bool
    ) -> None:
        import optuna  # noqa: PLC0415  the extra `local`, and a third of a second

        self._optuna: Any = optuna
        self._name = name
        self._arguments = arguments
        self._seed = arguments.get("seed", seed)
        self._distributions = {parameter.name: parameter.optuna_distribution() for parameter in parameters}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study on stderr
        try:
            self._study: Any = optuna.create_study(
                direction="maximize" if maximize else "minimize", sampler=self._sampler(self._seed)
            )
        finally:
            optuna.logging.set_verbosity(verbosity)
        self._numbers: list[int] = []  # Optuna's number of each of our trials

    def ask(self) -> Point:
        """Return the next trial's coordinates."""
        if self._name in _LEARNS_FROM_TRIALS_ALONE:
            chance = random.Random(f"{self._seed} {len(self._numbers)}")  # noqa: S311  no secret
            self._study.sampler = self._sampler(chance.getrandbits(_SEED_BITS))
        trial = self._study.ask(fixed_distributions=self._distributions)
        self._numbers.append(trial.number)
        return dict(trial.params)

    def tell(self, number: int, value: float | None) -> None:
        """Take a trial's objective."""
        if value is None:
            self._study.tell(self._numbers[number], state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._numbers[number], value)

    def recall(self, point: Point) -> None:
        """Take up what was answered to the next question before a restart."""
        if self._name in _LEARNS_FROM_TRIALS_ALONE:
            self._study.sampler = self._optuna.samplers.RandomSampler()  # asked for nothing
        elif self.ask() == point:
            return
        else:  # another version of Optuna draws otherwise
            self._study.tell(self._numbers.pop(), state=self._optuna.trial.TrialState.FAIL)
        self._study.enqueue_trial(dict(point))
        self._numbers.append(self._study.ask(fixed_distributions=self._distributions).number)

    def _sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():
            # What is experimental or deprecated there is pinned here by the extra's range of versions.
            warnings.simplefilter("ignore")
            return _sampler(self._optuna.samplers, self._name, {**self._arguments, "seed": seed}, self._arguments)


def _sampler(samplers: Any, name: str, arguments: dict[str, Any], given: Mapping[str, Any]) -> Any:
    if name == "random":
        return samplers.RandomSampler(**arguments)
    if name == "cmaes":
        return samplers.CmaEsSampler(**arguments, warn_independent_sampling=False)
    if name == "sobol":
        # Without random_state the plain sequence, as goptuna's; with it another scrambling of it for each seed.
        return samplers.QMCSampler(
            seed=arguments["seed"],
            scramble="seed" in given,
            warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        )
    if name == "bayesianoptimization":
        return samplers.GPSampler(**arguments, warn_independent_sampling=False)
    gamma = arguments.pop("gamma", None)
    if gamma is not None:
        arguments["gamma"] = lambda trials: min(int(gamma * trials**0.5) + 1, _MAX_GAMMA_TRIALS)
    # Parallel trials: those that run still count as bad ones, so that the next one is not beside them. As in Katib.
    return samplers.TPESampler(**arguments, multivariate=name == "multivariate-tpe", constant_liar=True)
