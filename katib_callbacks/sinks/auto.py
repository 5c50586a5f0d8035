"""Sinks that ``auto`` stands for: the destinations that this process has, the one that counts first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from katib_callbacks import settings

if TYPE_CHECKING:
    from katib_callbacks.settings import Runtime

AUTO = "auto"
KATIB = "katib"
TRAINJOB = "trainjob"


def sinks_here(runtime: "Runtime", *, has_trial: bool) -> Sequence[str]:
    """Return ``katib`` in a Katib trial and ``trainjob`` where Kubeflow Trainer shows the status of its jobs.

    In this order where both are true; elsewhere it is ``katib``, which does nothing outside a trial.
    """
    found = [KATIB] if has_trial else []
    if runtime.variable(settings.TRAINER_SERVER_URL) is not None:
        found.append(TRAINJOB)
    return found or [KATIB]
