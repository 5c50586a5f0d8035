"""Katib's algorithms by name, with Katib's settings: checked, and made.

Samplers cannot be stored, so after a restart the stored questions and answers are given to a new one.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.local.algorithms import hyperband, pbt
from katib_callbacks.local.algorithms.grid import Grid
from katib_callbacks.local.algorithms.optuna import OptunaAlgorithm
from katib_callbacks.local.algorithms.space import Parameter, Point

_logger = logging.getLogger(__name__)


class Algorithm(Protocol):
    """An algorithm, as the controller sees it. Trials are numbered from 0 in the order of the questions."""

    @property
    def is_waiting(self) -> bool:
        """Whether an answer of None means that there is a point only when trials that run have ended."""

    def ask(self) -> Point | None:
        """Return the next trial's coordinates; None if there is none, for now or for good."""

    def tell(self, number: int, value: float | None) -> None:
        """Take a trial's objective; None for a trial that has none, because it failed or reported nothing."""

    def recall(self, point: Point) -> None:
        """Take up what was answered to the next question before a restart."""


def _if(kind: Callable[[str], Any], is_right: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Return the conversion of a text to a kind, which takes only what is right."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not is_right(value):
            raise ValueError
        return value

    return convert


def _at_least(low: float, kind: type) -> Callable[[str], Any]:
    return _if(kind, lambda number: low <= number < math.inf)


def _between(low: float, high: float) -> Callable[[str], Any]:
    return _if(float, lambda number: low < number < high)


def _one_of(*words: str) -> Callable[[str], Any]:
    return _if(str, words.__contains__)


def _restarts(text: str) -> None:
    if text.lower() != "none":
        _one_of("ipop", "bipop")(text)
        _logger.warning("cmaes: Optuna restarts no more by itself; restart_strategy %r is not acted upon", text)


_share = _if(float, lambda number: 0 <= number <= 1)
_absolute = _if(str, lambda path: path.startswith("/") and path.strip("/"))

_SEED = {"random_state": ("seed", _if(int, range(1 << 32).__contains__))}  # numpy's range
_TPE = {
    **_SEED,
    "n_startup_trials": ("n_startup_trials", _at_least(0, int)),
    "n_ei_candidates": ("n_ei_candidates", _at_least(1, int)),
    "n_EI_candidates": ("n_ei_candidates", _at_least(1, int)),
    "gamma": ("gamma", _between(0, 1)),
    "prior_weight": ("prior_weight", _between(0, math.inf)),
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
        "sigma": ("sigma0", _between(0, math.inf)),
        "restart_strategy": ("restart_strategy", _restarts),
    },
    "sobol": _SEED,
    "bayesianoptimization": {
        **_SEED,
        "n_initial_points": ("n_startup_trials", _at_least(0, int)),
        "base_estimator": ("base_estimator", _one_of("GP", "RF", "ET", "GBRT")),
        "acq_func": ("acq_func", _one_of("gp_hedge", "LCB", "EI", "PI", "EIps", "PIps")),
        "acq_optimizer": ("acq_optimizer", _one_of("auto", "sampling", "lbfgs")),
    },
    "hyperband": {
        **_SEED,
        "r_l": ("r_l", _at_least(1, float)),
        "eta": ("eta", _at_least(2, int)),
        "resource_name": ("resource_name", str),
    },
    "pbt": {
        **_SEED,
        "suggestion_trial_dir": ("suggestion_trial_dir", _absolute),
        "n_population": ("n_population", _at_least(pbt.LEAST_POPULATION, int)),
        "truncation_threshold": ("truncation_threshold", _share),
        "resample_probability": ("resample_probability", _share),
    },
}

_NOT_ACTED_UPON = frozenset({"base_estimator", "acq_func", "acq_optimizer"})
"""Settings of scikit-optimize, which Optuna's Gaussian process has no counterpart of."""

_ONLY_HERE = {
    "tpe": ({"n_startup_trials", "n_ei_candidates"}, "hyperopt's"),
    "multivariate-tpe": ({"n_EI_candidates", "gamma", "prior_weight"}, "Optuna's"),
}
"""Settings that are taken here, and that the algorithm's suggestion service on a cluster refuses; whose it is."""


@dataclass(frozen=True)
class AlgorithmChoice:
    """An algorithm of ``SETTINGS``, with checked arguments for Optuna (``seed`` only if given), and warnings."""

    name: str
    arguments: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def choose(name: str, settings: Mapping[str, str]) -> AlgorithmChoice:
    """Check an algorithm's name and settings; the error lists the known ones."""
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
            value = convert(text)
        except ValueError as error:
            raise ConfigurationError(f"algorithmSettings: {text!r} cannot be {setting} of {name}") from error
        if setting not in _NOT_ACTED_UPON:
            arguments[argument] = value
    return AlgorithmChoice(name, arguments, tuple(_warnings(name, settings)))


def _warnings(name: str, settings: Mapping[str, str]) -> Iterator[str]:
    only_here, service = _ONLY_HERE.get(name, (set(), ""))
    if refused := sorted(only_here & set(settings)):
        taken = ", ".join(setting for setting in SETTINGS[name] if setting not in only_here)
        yield (
            f"{name} on a cluster is {service} and fails an experiment with the setting {', '.join(refused)}; it takes "
            f"{taken}."
        )
    if idle := sorted(_NOT_ACTED_UPON & set(settings)):
        yield f"{name} is Optuna's Gaussian process here, on which {', '.join(idle)} has no effect."


def check_space(
    choice: AlgorithmChoice, parameters: Sequence[Parameter], max_trial_count: int | None, *, parallel: int = 1
) -> None:
    """Check that an algorithm can search a space, as Katib's suggestion services do."""
    if choice.name == "hyperband":
        hyperband.check(parameters, choice.arguments, parallel=parallel)
    if choice.name == "pbt":
        pbt.check(parameters, choice.arguments)
    if choice.name == "cmaes" and sum(parameter.is_number for parameter in parameters) < 2:  # noqa: PLR2004
        raise ConfigurationError("cmaes needs two parameters of type int or double")
    if choice.name == "grid":
        points = math.prod(len(parameter.grid()) for parameter in parameters)
        if max_trial_count is not None and max_trial_count > points:
            raise ConfigurationError(f"the grid has {points} points, fewer than maxTrialCount {max_trial_count}")


_NEEDED: Mapping[str, tuple[str, ...]] = {
    "grid": (),
    "hyperband": (),
    "pbt": (),
    "cmaes": ("optuna", "cmaes"),
    "sobol": ("optuna", "scipy"),
    "bayesianoptimization": ("optuna", "scipy", "torch"),  # torch is in no extra: most have it for their training
}


def check_installed(choice: AlgorithmChoice) -> None:
    """Check that an algorithm's packages are there."""
    needed = _NEEDED.get(choice.name, ("optuna",))
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        command = 'pip install "katib-callbacks[local]"' + (" torch" if "torch" in missing else "")
        raise MissingDependencyError(f"{choice.name} needs {' and '.join(missing)}: {command}")


def make(choice: AlgorithmChoice, parameters: Sequence[Parameter], *, seed: int, maximize: bool) -> Algorithm:
    """Make an algorithm that has answered nothing yet; ``seed`` is taken where the settings have no other."""
    check_installed(choice)
    own = {"seed": seed, **choice.arguments}
    if choice.name == "hyperband":
        return hyperband.Hyperband(parameters, maximize=maximize, **own)
    if choice.name == "pbt":
        own.pop("suggestion_trial_dir")
        return pbt.PopulationBasedTraining(parameters, maximize=maximize, **own)
    if choice.name == "grid":
        return Grid(parameters, choice.arguments.get("seed"))
    return OptunaAlgorithm(choice.name, choice.arguments, parameters, seed=seed, maximize=maximize)
