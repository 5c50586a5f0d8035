"""Katib's ``grid``: all points in order, or shuffled where there is a seed."""

import math
import random
from collections.abc import Iterator, Sequence

from katib_callbacks.local.algorithms.space import Coordinate, Parameter, Point


class Grid:
    """All points, the last parameter's values changing first. Optuna's own can only be run by its own loop.

    A grid may be far greater than memory: a point is made of its number when it is asked for.
    """

    is_waiting = False

    def __init__(self, parameters: Sequence[Parameter], seed: int | None) -> None:
        self._axes = [(parameter.name, parameter.grid()) for parameter in reversed(parameters)]
        size = math.prod(len(values) for _, values in self._axes)
        self._numbers = iter(range(size)) if seed is None else _shuffled(size, random.Random(seed))  # noqa: S311

    def ask(self) -> Point | None:
        """Return the next point; None if there is none."""
        number = next(self._numbers, None)
        if number is None:
            return None
        point: dict[str, Coordinate] = {}
        for name, values in self._axes:
            number, index = divmod(number, len(values))
            point[name] = values[index]
        return dict(reversed(point.items()))

    def tell(self, number: int, value: float | None) -> None:
        """Nothing can be learned."""

    def recall(self, point: Point) -> None:  # noqa: ARG002  the order of the points is ours
        """Take up what was answered to the next question before a restart."""
        self.ask()


def _shuffled(size: int, chance: random.Random) -> Iterator[int]:
    """Yield the numbers below ``size`` in random order, as Fisher and Yates do; keeps only those that it has moved."""
    moved: dict[int, int] = {}
    for first in range(size):
        other = chance.randrange(first, size)
        yield moved.get(other, other)
        moved[other] = moved.pop(first, first)
