"""A history that Katib can read: its controller takes answers of 4 MiB, and its UI asks for all names of a trial."""

import logging
from collections.abc import Sequence
from itertools import chain

from katib_callbacks.metrics import MetricLog

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 4_000_000
"""Of all rows of a training in one answer. gRPC's default bound, which Katib's clients have, is 4,194,304; the rest is
for what an evaluation adds."""

ROW_BYTES = 62
"""Of a row in an answer beside its name, at most: a time of 27 characters, a value of 24, and where fields begin."""

FIRST_ROWS = 100
"""How many of the first epochs stay: the medianstop algorithm compares these."""


def readable(epochs: Sequence[Sequence[MetricLog]]) -> list[MetricLog]:
    """Return the rows of a training, of fewer epochs where all would be more than Katib reads.

    The first epochs stay, and for each metric the last one and those where it was least or greatest, so that what Katib
    computes is the same; of the others, some that are evenly chosen.
    """
    sizes = [sum(ROW_BYTES + len(log.name.encode()) for log in epoch) for epoch in epochs]
    if sum(sizes) <= MAX_ANSWER_BYTES:
        return list(chain.from_iterable(epochs))
    kept = _that_count(epochs)
    room = MAX_ANSWER_BYTES - sum(sizes[index] for index in kept)
    for index in range(min(FIRST_ROWS, len(epochs))):
        if index not in kept and sizes[index] <= room:
            kept.add(index)
            room -= sizes[index]
    others = [index for index in range(len(epochs)) if index not in kept and sizes[index]]
    least = min((sizes[index] for index in others), default=1)
    count = max(0, min(len(others), room // least))  # at once right where all are of one size
    while count and sum(sizes[index] for index in _evenly(others, count)) > room:
        count = count * 9 // 10
    kept.update(_evenly(others, count))
    logger.warning(
        "The history has %s rows, more than Katib's controller and UI can read (4 MiB). Of its %s epochs, %s are "
        "reported: the first and the last ones, those where a metric was least or greatest, and others evenly chosen.",
        f"{sum(map(len, epochs)):,}",
        f"{len(epochs):,}",
        f"{len(kept):,}",
    )
    return [log for index in sorted(kept) for log in epochs[index]]


def _that_count(epochs: Sequence[Sequence[MetricLog]]) -> set[int]:
    """Return the epochs that have a metric's least, greatest or last value."""
    least: dict[str, tuple[float, int]] = {}
    greatest: dict[str, tuple[float, int]] = {}
    last: dict[str, int] = {}
    for index, epoch in enumerate(epochs):
        for log in epoch:
            if log.name not in least or log.value < least[log.name][0]:
                least[log.name] = log.value, index
            if log.name not in greatest or log.value > greatest[log.name][0]:
                greatest[log.name] = log.value, index
            last[log.name] = index
    return {index for _, index in chain(least.values(), greatest.values())} | set(last.values())


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    return [indices[(2 * number + 1) * len(indices) // (2 * count)] for number in range(count)]
