"""Sinks that ``auto`` stands for: the destinations that this process has, the one that counts first."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    from katib_callbacks.settings import Runtime

AUTO = "auto"
KATIB = "katib"
TRAINJOB = "trainjob"

logger = logging.getLogger(__name__)


def sinks_here(runtime: "Runtime", *, has_trial: bool) -> Sequence[str]:
    """Return ``katib`` in a trial, then ``trainjob`` where Kubeflow Trainer shows status; else an idle ``katib``."""
    found = [KATIB] if has_trial else []
    if runtime.variable(settings.TRAINER_SERVER_URL) is not None and _is_usable(runtime):
        found.append(TRAINJOB)
    return found or [KATIB]


def _is_usable(runtime: "Runtime") -> bool:
    """Return whether what Kubeflow Trainer injects can be right; nobody has asked for it, so it must not raise."""
    from katib_callbacks.sinks.trainjob.server import resolve_status_server  # noqa: PLC0415  in a TrainJob alone

    try:
        resolve_status_server(runtime)
    except ConfigurationError as error:
        logger.warning("The TrainJob's status will not be shown: %s", error)
        return False
    return True
