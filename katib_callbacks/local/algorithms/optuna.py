"""The search algorithms, with Katib's names and settings, through Optuna.

An algorithm is asked for the next trial's parameters and told what became of each trial. Samplers cannot be stored, so
after a restart the same questions and answers are put to a new one in the same order: with the same seed it arrives
where the old one stood, and asks on as if nothing had happened.
"""

import itertools
import logging
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.local.algorithms.space import Coordinate, Parameter

_logger = logging.getLogger(__name__)

_MAX_GAMMA_TRIALS = 25
"""Hyperopt, whose setting ``gamma`` is, never takes more trials than these for good ones (hyperopt/tpe.py)."""

Point = Mapping[str, Coordinate]


class Algorithm(Protocol):
    """What the controller sees of an algorithm. Trials are numbered from 0 in the order of the questions."""

    def ask(self) -> Point | None:
        """Return the next trial's coordinates; None if the search space is exhausted."""

    def tell(self, number: int, value: float | None) -> None:
        """Take a trial's objective; None for a trial that has none, because it failed or reported nothing."""

    def correct(self, number: int, point: Point) -> None:
        """Take ``point`` for what was answered to a question, in place of the answer that was given."""


def _at_least(low: float, kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        number = kind(text)
        if not low <= number < float("inf"):
            raise ValueError
        return number

    return convert


def _between(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        number = float(text)
        if not low < number < high:
            raise ValueError
        return number

    return convert


def _restarts(text: str) -> str | None:
    if text.lower() == "none":
        return None
    if text not in {"ipop", "bipop"}:
        raise ValueError
    _logger.warning("cmaes: Optuna restarts no more by itself; restart_strategy %r is not acted upon", text)
    return None


_SEED = {"random_state": ("seed", _at_least(0, int))}
_TPE = {
    **_SEED,
    "n_startup_trials": ("n_startup_trials", _at_least(0, int)),
    "n_ei_candidates": ("n_ei_candidates", _at_least(1, int)),
    "n_EI_candidates": ("n_ei_candidates", _at_least(1, int)),
    "gamma": ("gamma", _between(0, 1)),
    "prior_weight": ("prior_weight", _between(0, float("inf"))),
}

# {algorithm: {Katib's setting: (Optuna's argument, conversion of the text)}}. Source: the validations in Katib's
# pkg/suggestion/v1beta1/{optuna,hyperopt}/service.py and goptuna/service.go; TPE takes those of both services.
SETTINGS: Mapping[str, Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "random": _SEED,
    "grid": _SEED,
    "tpe": _TPE,
    "multivariate-tpe": _TPE,
    "cmaes": {
        **_SEED,
        "sigma": ("sigma0", _between(0, float("inf"))),
        "restart_strategy": ("restart_strategy", _restarts),
    },
    "sobol": _SEED,
}


@dataclass(frozen=True)
class AlgorithmChoice:
    """An algorithm by name, with checked settings.

    Args:
        name: One of ``SETTINGS``.
        arguments: Optuna's arguments. ``seed`` is among them only if the experiment gives one.
    """

    name: str
    arguments: Mapping[str, Any]


def choose(name: str, settings: Mapping[str, str]) -> AlgorithmChoice:
    """Check an algorithm's name and settings.

    Raises:
        ConfigurationError: A name, a setting or a value that is not known; the message lists the known ones.
    """
    if name not in SETTINGS:
        raise ConfigurationError(
            f"algorithmName: {name!r} is not one of the algorithms here; known: {', '.join(SETTINGS)}"
        )
    arguments: dict[str, Any] = {}
    for setting, text in settings.items():
        if setting not in SETTINGS[name]:
            known = ", ".join(SETTINGS[name])
            raise ConfigurationError(f"algorithmSettings: {name} has no setting {setting!r}; known: {known}")
        argument, convert = SETTINGS[name][setting]
        try:
            arguments[argument] = convert(text)
        except ValueError as error:
            raise ConfigurationError(f"algorithmSettings: {text!r} cannot be {setting} of {name}") from error
    return AlgorithmChoice(name, arguments)


def check_space(choice: AlgorithmChoice, parameters: Sequence[Parameter], max_trial_count: int | None) -> None:
    """Check that an algorithm can search a space, as Katib's suggestion services do.

    Raises:
        ConfigurationError: CMA-ES without two numbers; a grid with a double that has no step, or with fewer points than
            trials.
    """
    if choice.name == "cmaes" and sum(parameter.is_number for parameter in parameters) < 2:  # noqa: PLR2004
        raise ConfigurationError("cmaes needs two parameters of type int or double")
    if choice.name == "grid":
        points = 1
        for parameter in parameters:
            points *= len(parameter.grid())
        if max_trial_count is not None and max_trial_count > points:
            raise ConfigurationError(f"the grid has {points} points, fewer than maxTrialCount {max_trial_count}")


def check_installed(choice: AlgorithmChoice) -> None:
    """Check that an algorithm's packages are there.

    Raises:
        MissingDependencyError: One is not.
    """
    needed = {"grid": (), "cmaes": ("optuna", "cmaes"), "sobol": ("optuna", "scipy")}.get(choice.name, ("optuna",))
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f'{choice.name} needs {" and ".join(missing)}: pip install "katib-callbacks[local]"'
        )


def make(choice: AlgorithmChoice, parameters: Sequence[Parameter], *, seed: int, maximize: bool) -> Algorithm:
    """Make an algorithm that has answered nothing yet.

    Args:
        choice: Name and settings.
        parameters: The search space.
        seed: Taken where the settings have no ``random_state``.
        maximize: Whether greater objectives are better.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    check_installed(choice)
    if choice.name == "grid":
        return _Grid(parameters, choice.arguments.get("seed"))
    return _Optuna(choice, parameters, seed=seed, maximize=maximize)


class _Grid:
    """All points in order, or shuffled where there is a seed. Optuna's own can only be run by its own loop."""

    def __init__(self, parameters: Sequence[Parameter], seed: int | None) -> None:
        self._names = [parameter.name for parameter in parameters]
        points = itertools.product(*(parameter.grid() for parameter in parameters))
        if seed is not None:
            shuffled = list(points)
            random.Random(seed).shuffle(shuffled)  # noqa: S311  no secret
            points = iter(shuffled)  # type: ignore[assignment]  # an iterator, too
        self._points = points

    def ask(self) -> Point | None:
        point = next(self._points, None)
        return None if point is None else dict(zip(self._names, point, strict=True))

    def tell(self, number: int, value: float | None) -> None:
        """Nothing can be learned."""

    def correct(self, number: int, point: Point) -> None:
        """Nothing to correct: the order of the points is Python's."""


class _Optuna:
    def __init__(self, choice: AlgorithmChoice, parameters: Sequence[Parameter], *, seed: int, maximize: bool) -> None:
        import optuna  # noqa: PLC0415  the extra `local`, and a third of a second

        self._optuna: Any = optuna
        self._distributions = {parameter.name: parameter.optuna_distribution() for parameter in parameters}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study on stderr
        try:
            with warnings.catch_warnings():
                # What is experimental or deprecated there is pinned here by the extra's range of versions.
                warnings.simplefilter("ignore")
                self._study = optuna.create_study(
                    direction="maximize" if maximize else "minimize", sampler=_sampler(optuna, choice, seed)
                )
        finally:
            optuna.logging.set_verbosity(verbosity)
        self._number_of: dict[int, int] = {}  # Optuna's number of each of our trials, where they differ
        self._asked = 0

    def ask(self) -> Point:
        trial = self._study.ask(fixed_distributions=self._distributions)
        self._number_of[self._asked] = trial.number
        self._asked += 1
        return dict(trial.params)

    def tell(self, number: int, value: float | None) -> None:
        optuna_number = self._number_of.pop(number)
        if value is None:
            self._study.tell(optuna_number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(optuna_number, value)

    def correct(self, number: int, point: Point) -> None:
        self._study.tell(self._number_of[number], state=self._optuna.trial.TrialState.FAIL)
        self._study.enqueue_trial(dict(point))
        self._number_of[number] = self._study.ask(fixed_distributions=self._distributions).number


def _sampler(optuna: Any, choice: AlgorithmChoice, seed: int) -> Any:
    arguments = {"seed": seed, **choice.arguments}
    samplers = optuna.samplers
    if choice.name == "random":
        return samplers.RandomSampler(**arguments)
    if choice.name == "cmaes":
        return samplers.CmaEsSampler(**arguments, warn_independent_sampling=False)
    if choice.name == "sobol":
        # Without random_state the plain sequence, as goptuna's; with it another scrambling of it for each seed.
        return samplers.QMCSampler(
            seed=arguments["seed"],
            scramble="seed" in choice.arguments,
            warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        )
    gamma = arguments.pop("gamma", None)
    if gamma is not None:
        arguments["gamma"] = lambda trials: min(int(gamma * trials**0.5) + 1, _MAX_GAMMA_TRIALS)
    # Parallel trials: those that run still count as bad ones, so that the next one is not beside them. As in Katib.
    return samplers.TPESampler(**arguments, multivariate=choice.name == "multivariate-tpe", constant_liar=True)
