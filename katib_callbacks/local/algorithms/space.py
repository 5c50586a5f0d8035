"""The search space: a parameter's values, how an algorithm samples them, and the string that a trial gets.

Algorithms sample coordinates that every Optuna sampler knows (a float, an index, a choice). What Katib's distributions
and steps make of them stands here, so that all algorithms know all of them.
"""

import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from statistics import NormalDist
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.models import V1beta1ParameterSpec

DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")
NUMBER_TYPES = ("int", "double")
CHOICE_TYPES = ("categorical", "discrete")

_SIGMAS = 6.0
"""A normal distribution has its mean in the middle of the range and this many standard deviations in it: Katib's rule
(pkg/suggestion/v1beta1/hyperopt/base_service.py), which we cut at the range's ends."""

_LEAST_LOG = 1e-10
"""Katib's lower end of a logarithm where ``min`` is not above zero (pkg/suggestion/v1beta1/optuna/base_service.py)."""

Coordinate = float | int | str
Point = Mapping[str, Coordinate]


@dataclass(frozen=True)
class Parameter:
    """One parameter of the search space: ``int``, ``double``, ``categorical`` or ``discrete``.

    Choices use only ``choices``, numbers the others; ``step`` is the distance of neighbours, None for every double.
    """

    name: str
    kind: str
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    step: Decimal | None = None
    distribution: str = "uniform"
    choices: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether values are ordered; CMA-ES needs two such parameters."""
        return self.kind in NUMBER_TYPES

    @property
    def _last_index(self) -> int:
        assert self.step is not None  # noqa: S101  for type checkers: asked only where there is one
        return int((self.high - self.low) / self.step)

    @property
    def _is_indexed(self) -> bool:
        return self.step is not None and self.distribution == "uniform"

    def optuna_distribution(self) -> Any:
        """Return the Optuna distribution of the coordinate."""
        from optuna import distributions  # noqa: PLC0415  a third of a second

        if not self.is_number:
            return distributions.CategoricalDistribution(self.choices)
        if self._is_indexed:
            return distributions.IntDistribution(0, self._last_index)
        if self.distribution == "uniform":
            return distributions.FloatDistribution(float(self.low), float(self.high))
        return distributions.FloatDistribution(0.0, 1.0)

    def sample(self, chance: random.Random) -> Coordinate:
        """Return a random coordinate."""
        if not self.is_number:
            return chance.choice(self.choices)
        if self._is_indexed:
            return chance.randint(0, self._last_index)
        return chance.uniform(float(self.low), float(self.high)) if self.distribution == "uniform" else chance.random()

    def coordinate_of(self, number: Decimal) -> Coordinate:
        """Return the coordinate of a number, which need not lie within the range, on the grid if there is a step."""
        if not self.is_number:
            return str(number)
        if self.step is None:
            return float(number)
        return int(((number - self.low) / self.step).to_integral_value(ROUND_HALF_EVEN))

    def grid(self) -> Sequence[Coordinate]:
        """Return all coordinates; ConfigurationError if there are too many, as of a double without a step."""
        if not self.is_number:
            return self.choices
        if self.step is None:
            raise ConfigurationError(f"parameter {self.name!r}: the grid needs feasibleSpace.step of a double")
        if self._last_index >= sys.maxsize:
            raise ConfigurationError(f"parameter {self.name!r}: the grid has more values than can be counted")
        return range(self._last_index + 1)

    def assignment(self, coordinate: Coordinate) -> str:
        """Return the string that a trial gets for a coordinate: ``3``, ``0.1``, ``1e-05``, ``adam``."""
        if not self.is_number:
            return str(coordinate)
        if self.step is not None and isinstance(coordinate, int):
            return self._format(self.low + coordinate * self.step)
        if self.distribution == "uniform":
            return repr(float(coordinate))
        return self._format(self._on_the_grid(self._quantile(float(coordinate))))

    def _quantile(self, share: float) -> float:
        """Return the number below which ``share`` (0 to 1) of the distribution lies."""
        is_log = self.distribution.startswith("log")
        low, high = (_logarithm(end, self.kind) if is_log else float(end) for end in (self.low, self.high))
        if self.distribution.lower().endswith("normal") and high > low:
            normal = NormalDist((low + high) / 2, (high - low) / _SIGMAS)
            first, last = normal.cdf(low), normal.cdf(high)
            value = normal.inv_cdf(first + share * (last - first))
        else:
            value = low + share * (high - low)
        number = math.exp(value) if is_log else value
        return min(max(number, float(self.low)), float(self.high))

    def _on_the_grid(self, number: float) -> Decimal:
        if self.step is None:
            return Decimal(repr(number))
        index = ((Decimal(repr(number)) - self.low) / self.step).to_integral_value(ROUND_HALF_EVEN)
        return self.low + min(int(index), self._last_index) * self.step

    def _format(self, number: Decimal) -> str:
        return str(int(number)) if self.kind == "int" else repr(float(number))


def _logarithm(end: Decimal, kind: str) -> float:
    return math.log(max(float(end), 1.0 if kind == "int" else _LEAST_LOG))


def read_parameter(spec: V1beta1ParameterSpec) -> Parameter:
    """Read one parameter of an experiment; an error begins with the path below the parameter."""
    space = spec.feasible_space
    if space is None:
        raise ConfigurationError("feasibleSpace: must be specified")
    name, kind = str(spec.name), str(spec.parameter_type)
    if kind in CHOICE_TYPES:
        choices = tuple(map(str, space.list or ()))
        if not choices:
            raise ConfigurationError("feasibleSpace.list: must have at least one value")
        if len(set(choices)) != len(choices):
            raise ConfigurationError("feasibleSpace.list: has a value twice")
        return Parameter(name, kind, choices=choices)
    if kind not in NUMBER_TYPES:
        known = ", ".join((*NUMBER_TYPES, *CHOICE_TYPES))
        raise ConfigurationError(f"parameterType: {kind!r} is not known; known: {known}")
    low, high = (_number(end, getattr(space, end), kind) for end in ("min", "max"))
    step = _number("step", space.step, kind) if space.step else None
    if low > high:
        raise ConfigurationError(f"feasibleSpace: min {space.min} is above max {space.max}")
    if step is not None and step <= 0:
        raise ConfigurationError(f"feasibleSpace.step: must be above zero, not {space.step}")
    if kind == "int" and step is None:
        step = Decimal(1)
    distribution = space.distribution or "uniform"
    if distribution not in DISTRIBUTIONS:
        raise ConfigurationError(
            f"feasibleSpace.distribution: {distribution!r} is not known; known: {', '.join(DISTRIBUTIONS)}"
        )
    return Parameter(name, kind, low, high, step, distribution)


def _number(end: str, text: str | None, kind: str) -> Decimal:
    if not text:
        raise ConfigurationError(f"feasibleSpace.{end}: must be specified for parameterType {kind}")
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise ConfigurationError(f"feasibleSpace.{end}: {text!r} is not a number") from error
    is_float = number.is_finite() and abs(number.adjusted()) <= sys.float_info.max_10_exp
    if not is_float or (kind == "int" and number != number.to_integral_value()):
        raise ConfigurationError(f"feasibleSpace.{end}: {text!r} is no {kind}")
    return number
