"""Runtime: the environment, clock, sleep and randomness of a process, which tests replace."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process; a function, so that what holds it can be pickled to another process."""
    return os.environ


def utc_now() -> datetime:
    """Return the wall clock in UTC."""
    return datetime.now(timezone.utc)


def random_between(low: float, high: float) -> float:
    """Return a random float between two bounds."""
    import random  # noqa: PLC0415  only a retry needs it

    return random.uniform(low, high)  # noqa: S311  jitter


@dataclass(frozen=True)
class Runtime:
    """The surroundings of a process. Tests hand in their own; everything else uses ``DEFAULT_RUNTIME``.

    Args:
        environ: Returns the environment.
        monotonic: Seconds that never go backwards; deadlines are measured with it.
        now: Wall clock, timezone-aware UTC; timestamps are made of it.
        wait: Sleeps on an event for some seconds and returns whether it was set.
        uniform: A random float between two bounds; jitter is made of it.
    """

    environ: Callable[[], Mapping[str, str]] = process_environment
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = utc_now
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    uniform: Callable[[float, float], float] = random_between

    def variable(self, name: str) -> str | None:
        """Return an environment variable without surrounding blanks; None if unset or empty."""
        return self.environ().get(name, "").strip() or None


DEFAULT_RUNTIME = Runtime()
