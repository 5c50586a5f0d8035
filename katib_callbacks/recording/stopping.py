"""Stopping: one training's question at the end of an epoch, whether the DB manager wants it to stop."""

import logging
import math
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.rows import RowBuffer
from katib_callbacks.sinks.katib.asking import GO_ON, Asker, Decision

logger = logging.getLogger(__name__)


_SIZES = (
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "HOROVOD_SIZE",
)
"""Where launchers say how many processes there are (reporting/ranks.py)."""


def can_agree(environ: Mapping[str, str], jax: Any) -> bool:
    """Return whether :func:`is_any_told` reaches every process of the training; the same on all of them."""
    if _torch_group() is not None or jax is not None:
        return True
    return "TF_CONFIG" not in environ and not any(environ.get(name, "1") != "1" for name in _SIZES)


def is_any_told(stop: bool, jax: Any) -> bool:
    """Return whether any process is told to stop; every process of the training has to call this, and waits in it."""
    group = _torch_group()
    if group is not None:
        answers: list[Any] = [None] * group.get_world_size()
        group.all_gather_object(answers, stop)
        return any(answers)
    if jax is not None and jax.process_count() > 1:
        hosts = import_module(f"{jax.__name__}.experimental.multihost_utils")
        return bool(hosts.process_allgather(jax.numpy.asarray(stop)).any())
    return stop


def _torch_group() -> Any:
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    is_used = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if is_used and distributed.get_world_size() > 1 else None


class Stopping:
    """Asks about one training, on the process that reports it; ``name`` is the framework's of the objective."""

    def __init__(self, asker: Asker, name: str) -> None:
        self._asker = asker
        self._name = name
        self._step = 0
        self.decision = GO_ON

    def ask(self, step: int, rows: RowBuffer, numbers: Numbers) -> Decision:
        """Hand in the objective of the last row, and return the answer; go on where that row has no finite one."""
        if (
            self.decision.stop
            or step <= self._step
            or rows.since.get(self._name) != rows.last
            or self._name not in rows.latest
        ):
            return self.decision
        number = numbers.number(self._name, rows.latest[self._name])
        if number is None or not math.isfinite(number):
            return GO_ON
        rows.latest[self._name] = number  # converted once
        self._step = step
        self.decision = self._asker.ask(step, number)
        if self.decision.stop:
            logger.warning("The DB manager ends this training early, at %d: %s.", step, self.decision.reason)
        return self.decision

    def conclude(self) -> None:
        """Tell that the training ended and was reported, unless it was stopped."""
        if not self.decision.stop:
            self._asker.tell_end()
