"""Katib's ``hyperband``: many short trials first, and the best of each round again for longer.

Source: Li et al., Hyperband (JMLR 2018), as Katib has it (pkg/suggestion/v1beta1/hyperband/service.py), except that a
bracket has the paper's size; Katib makes it as large as the number of trials it is just asked for.
"""

import math
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.algorithms.space import Parameter, Point

DEFAULT_ETA = 3


class Hyperband:
    """Brackets of rounds. The next round of a bracket waits for all trials of the one before.

    A trial runs as long as ``resource_name`` says, ``r_l`` at most; one of ``eta`` trials gets into the next round,
    with so many times the resource.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        resource_name: str,
        r_l: float,
        eta: int = DEFAULT_ETA,
        seed: int,
        maximize: bool,
    ) -> None:
        self._parameters = parameters
        self._resource = next(parameter for parameter in parameters if parameter.name == resource_name)
        self._r_l, self._eta, self._maximize = r_l, eta, maximize
        self._chance = random.Random(seed)  # noqa: S311  no secret
        self._most_rounds = self._bracket = max_bracket(r_l, eta)
        self._round = 0
        self._points: list[Point] = []  # of each trial
        self._round_begins = 0  # the number of the round's first trial
        self._next: list[Point] = self._first_round()
        self._values: dict[int, float | None] = {}  # by trial

    @property
    def is_waiting(self) -> bool:
        """Whether there is a point only when trials that run have ended."""
        return self._bracket >= 0

    def ask(self) -> Point | None:
        """Return the next trial's coordinates; None until the round has ended, or if all brackets have."""
        if not self._next and self._bracket >= 0:
            self._begin_next_round()
        if not self._next:
            return None
        point = self._next.pop(0)
        self._points.append(point)
        return point

    def tell(self, number: int, value: float | None) -> None:
        """Take a trial's objective; one without is not in the next round."""
        self._values[number] = value

    def recall(self, point: Point) -> None:
        """Take up what was answered to the next question before a restart."""
        if self.ask() is None:
            self._points.append(point)
        self._points[-1] = point

    def _begin_next_round(self) -> None:
        if self._round == self._bracket:  # the bracket is complete; the next one need not wait for its end
            self._bracket, self._round = self._bracket - 1, 0
            if self._bracket >= 0:
                self._round_begins = len(self._points)
                self._next = self._first_round()
            return
        numbers = range(self._round_begins, len(self._points))
        if not all(number in self._values for number in numbers):
            return
        ended = [(value, number) for number in numbers if (value := self._values[number]) is not None]
        ended.sort(key=lambda pair: -pair[0] if self._maximize else pair[0])
        best = [number for _, number in ended[: math.ceil(len(numbers) / self._eta)]]
        self._round += 1
        self._round_begins = len(self._points)
        self._next = [self._with_resource(self._points[number], self._bracket - self._round) for number in best]
        if not best:  # all have failed
            self._round = self._bracket
            self._begin_next_round()

    def _first_round(self) -> list[Point]:
        count = math.ceil((self._most_rounds + 1) * self._eta**self._bracket / (self._bracket + 1))
        points = [{one.name: one.sample(self._chance) for one in self._parameters} for _ in range(count)]
        return [self._with_resource(point, self._bracket) for point in points]

    def _with_resource(self, point: Point, rounds_left: int) -> Point:
        """Return a point with the resource of a trial before so many further rounds."""
        amount = max(1, int(self._r_l * self._eta**-rounds_left + 1e-9))  # 9 * 3**-2 is a little below 1
        return {**point, self._resource.name: self._resource.coordinate_of(Decimal(amount))}


def max_bracket(r_l: float, eta: int) -> int:
    """Return how many rounds the longest bracket has after its first."""
    return int(math.log(r_l) / math.log(eta) + 1e-9)  # log(1000) / log(10) is a little below 3


def check(parameters: Sequence[Parameter], given: Mapping[str, Any], *, parallel: int) -> None:
    """Check what Katib's suggestion service checks."""
    name, r_l = given.get("resource_name"), given.get("r_l")
    if name is None or r_l is None:
        raise ConfigurationError("algorithmSettings: hyperband needs r_l and resource_name")
    if name not in {parameter.name for parameter in parameters}:
        raise ConfigurationError(f"algorithmSettings: resource_name {name!r} is not one of spec.parameters")
    eta = given.get("eta", DEFAULT_ETA)
    least = math.ceil(eta ** max_bracket(r_l, eta))
    if parallel < least:
        raise ConfigurationError(f"hyperband needs a parallelTrialCount of at least {least}, not {parallel}")
