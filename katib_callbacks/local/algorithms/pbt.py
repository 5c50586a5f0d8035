"""Katib's ``pbt``, population based training: generations of trials, each from the checkpoint of one before.

As Katib has it (pkg/suggestion/v1beta1/pbt/service.py), its oddities included: one of the worst trials goes on from its
own checkpoint with a best one's parameters, and a generation begins when one more than the population succeeded.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.algorithms.space import Coordinate, Parameter, Point

GENERATION = "pbt.suggestion.katib.kubeflow.org/generation"
PARENT = "pbt.suggestion.katib.kubeflow.org/parent"
"""Katib's labels of such a trial. Here they stand in its point, and the parent is the number of a trial."""

LEAST_POPULATION = 5

_FACTORS = (0.8, 1.2)


@dataclass
class _Job:
    point: Point
    value: float | None = None

    @property
    def next_generation(self) -> int:
        return int(self.point[GENERATION]) + 1


class PopulationBasedTraining:
    """A queue of trials, filled with the next generation of ``n_population`` when it is empty.

    ``truncation_threshold`` is the share that counts as the worst, and as the best; ``resample_probability`` that of a
    parameter to be drawn anew, None to perturb all.
    """

    is_waiting = False

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        n_population: int,
        truncation_threshold: float,
        resample_probability: float | None = None,
        seed: int,
        maximize: bool,
    ) -> None:
        self._parameters = parameters
        self._population, self._threshold = n_population, truncation_threshold
        self._resample_probability = resample_probability
        self._sign = 1 if maximize else -1
        self._chance = random.Random(seed)  # noqa: S311  no secret
        self._jobs: list[_Job] = []  # by the number of the trial
        self._previous: list[_Job] = []
        self._current: list[_Job] = []
        self._pending = [self._seeded() for _ in range(n_population)]

    def ask(self) -> Point:
        """Return the next trial's coordinates, with its generation and parent."""
        if not self._pending:
            self._generate()
        point = self._pending.pop(0)
        self._jobs.append(_Job(point))
        return point

    def tell(self, number: int, value: float | None) -> None:
        """Take a trial's objective; one that has none is tried again."""
        job = self._jobs[number]
        if value is None:
            self._pending.append(job.point)
        else:
            job.value = self._sign * value
            self._current.append(job)

    def recall(self, point: Point) -> None:
        """Take up what was answered to the next question before a restart."""
        self.ask()
        self._jobs[-1] = _Job(point)

    def _seeded(self) -> Point:
        return {**{one.name: one.sample(self._chance) for one in self._parameters}, GENERATION: 0}

    def _generate(self) -> None:
        """Fill the queue: with the next generation, or, while that is not complete, with one trial more."""
        if len(self._current) > self._population:
            self._previous, self._current = self._current, []
            count = self._population
        elif self._previous:
            count = 1
        else:
            self._pending.append(self._seeded())
            return
        worst, others, best = self._segments(self._previous, count)
        for job in worst:
            self._append(self._chance.choice(best).point, job)
        for job in others:
            self._append({one.name: self._varied(one, job.point[one.name]) for one in self._parameters}, job)

    def _append(self, point: Point, parent: _Job) -> None:
        generation = parent.next_generation
        number = next(number for number, job in enumerate(self._jobs) if job is parent)
        self._pending.append({**point, GENERATION: generation, PARENT: number})

    def _segments(self, pool: list[_Job], count: int) -> tuple[list[_Job], list[_Job], list[_Job]]:
        """Return so many of the worst and of the others, in random order, and all of the best."""
        values = [job.value or 0.0 for job in pool]
        low, high = _quantile(values, self._threshold), _quantile(values, 1 - self._threshold)
        worst = [job for job, value in zip(pool, values, strict=True) if value < low]
        others = [job for job, value in zip(pool, values, strict=True) if value >= low]
        best = [job for job, value in zip(pool, values, strict=True) if value >= max(low, high)]
        self._chance.shuffle(worst)
        self._chance.shuffle(others)
        worst = worst[: int(count * self._threshold)]
        return worst, others[: count - len(worst)], best

    def _varied(self, parameter: Parameter, coordinate: Coordinate) -> Coordinate:
        if self._resample_probability is not None:
            is_drawn = self._chance.random() < self._resample_probability
            return parameter.sample(self._chance) if is_drawn else coordinate
        if not parameter.is_number:
            choices = parameter.choices
            place = choices.index(str(coordinate)) + self._chance.choice((-1, 1))
            return choices[place % len(choices)]
        number = float(parameter.assignment(coordinate)) * self._chance.choice(_FACTORS)
        number = min(max(number, float(parameter.low)), float(parameter.high))
        return number if parameter.kind == "double" else parameter.coordinate_of(Decimal(int(number)))


def check(parameters: Sequence[Parameter], given: Collection[str]) -> None:
    """Check what Katib's suggestion service needs."""
    missing = [name for name in ("suggestion_trial_dir", "n_population", "truncation_threshold") if name not in given]
    if missing:
        raise ConfigurationError(f"algorithmSettings: pbt needs {', '.join(missing)}")
    for parameter in parameters:
        if parameter.is_number and parameter.step is None:
            raise ConfigurationError(f"parameter {parameter.name!r}: pbt needs feasibleSpace.step of a double")
        if parameter.distribution != "uniform":
            raise ConfigurationError(f"parameter {parameter.name!r}: pbt knows only the distribution uniform")


def _quantile(values: Sequence[float], share: float) -> float:
    """Return numpy's quantile: between two values, the straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]) if len(ordered) > 1 else ordered[0]
