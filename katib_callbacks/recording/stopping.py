"""Stopping: one training's question at the end of an epoch, whether the DB manager wants it to stop."""

import logging
import math
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.rows import RowBuffer
from katib_callbacks.recording.voice import Voice
from katib_callbacks.reporting.ranks import is_one_of_many
from katib_callbacks.sinks.katib.asking import GO_ON, Asker, Decision

if TYPE_CHECKING:
    from katib_callbacks.reporting.run import ReporterRun
    from katib_callbacks.settings.early_stopping import Policy

logger = logging.getLogger(__name__)


def is_any_told(ask: Callable[[], bool], jax: Any, environ: Mapping[str, str]) -> bool | None:
    """Return whether any process is told to stop; every process of the training has to call this, and waits in it.

    None, the same on all of them, where they cannot agree upon it; then nobody is asked.
    """
    group = _torch_group()
    if group is not None:
        answers: list[Any] = [None] * group.get_world_size()
        group.all_gather_object(answers, ask())
        return any(answers)
    if jax is not None and jax.process_count() > 1:
        hosts = import_module(f"{jax.__name__}.experimental.multihost_utils")
        return bool(hosts.process_allgather(jax.numpy.asarray(ask())).any())
    if jax is None and is_one_of_many(environ):
        return None
    return ask()


def _torch_group() -> Any:
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    is_used = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if is_used and distributed.get_world_size() > 1 else None


class Stopping:
    """Asks about one training, on the process that reports it; ``name`` is the framework's of the objective."""

    @classmethod
    def begin(
        cls, run: "ReporterRun", policy: "Policy", names: Mapping[str, str] | None, voice: Voice
    ) -> "Stopping | None":
        """Make one for a run; None, with a warning, where the run has no DB manager to ask."""
        asker = run.asker(policy)
        if asker is None:
            voice.warn_once(
                "nobody to ask",
                "This training is not stopped early: the DB manager judges that, and this training's metrics do not go "
                "to one.",
            )
            return None
        objective = str(policy.objective)
        return cls(asker, names[objective] if names else objective)

    def __init__(self, asker: Asker, name: str) -> None:
        self._asker = asker
        self._name = name
        self._step = 0
        self.decision = GO_ON

    def ask(self, step: int, rows: RowBuffer, numbers: Numbers) -> Decision:
        """Hand in the objective of the last row, and return the answer; go on where that row has no finite one."""
        if self.decision.stop or step <= self._step or not rows.is_fresh(self._name):
            return self.decision
        number = numbers.number(self._name, rows.latest.values[self._name])
        if number is None or not math.isfinite(number):
            return GO_ON
        rows.latest.values[self._name] = number  # converted once
        self._step = step
        self.decision = self._asker.ask(step, number)
        if self.decision.stop:
            logger.warning("The DB manager ends this training early, at %d: %s.", step, self.decision.reason)
        return self.decision

    def conclude(self) -> None:
        """Tell that the training ended and was reported, unless it was stopped."""
        if not self.decision.stop:
            self._asker.tell_end()
