"""Shares of a training that are done, from 0 to 1: by epochs, by steps, by time; None where it cannot be known."""

import math
from collections.abc import Iterable


def share_of_epochs(epoch: int, epochs: int | None, steps: int, steps_per_epoch: float | None) -> float | None:
    """Return the share of a training that counts in epochs, from 0; only whole ones if their length is unknown."""
    if epochs is None or epochs < 1:
        return None
    is_known = steps_per_epoch is not None and 0 < steps_per_epoch < math.inf
    return (epoch + (min(steps / steps_per_epoch, 1.0) if is_known and steps_per_epoch else 0.0)) / epochs


def share_of_steps(step: int, steps: int) -> float | None:
    """Return the share of a training that counts in optimizer steps; less than one ``steps`` means no limit."""
    return step / steps if steps > 0 else None


def share_of_time(elapsed_s: float, left_s: float) -> float:
    """Return the share of a training that a clock ends."""
    return elapsed_s / max(elapsed_s + left_s, 1e-9)


def largest(shares: Iterable[float | None]) -> float | None:
    """Return the share of a training that several limits end, whichever comes first."""
    return max((share for share in shares if share is not None), default=None)
