"""Lightning: the answer of two groups of entry points, which it asks for callbacks whenever a Trainer is made."""

import logging
from typing import Any

from katib_callbacks import settings
from katib_callbacks._autolog import state
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.recording.callback import callers
from katib_callbacks.reporting.ranks import process_rank
from katib_callbacks.settings import DEFAULT_RUNTIME

logger = logging.getLogger(__name__)


def lightning_callbacks() -> list[Any]:
    """Answer Lightning, which asks whenever a Trainer is made, in every process that has this package.

    Returns the callback if this process asked for it, is part of a trial and the Trainer has none yet. Never raises,
    because that would break the Trainer.
    """
    try:
        if process_rank(DEFAULT_RUNTIME.environ()).is_global_zero:
            settings.warn_of_unknown_variables(settings.heeded(DEFAULT_RUNTIME))  # such as a KATIB_CALLBACKS_AUTOLGO
        if not state.STATE.is_asked():
            return []
        present, is_one_of_many = _callbacks_of_trainer(), _is_launched()
    except KatibCallbacksError as error:
        state.STATE.say_that_none_is_added(error)
        return []
    except Exception:
        logger.exception("Internal error in autolog, which adds no callback; training goes on.")
        return []
    callback = state.STATE.callback("lightning", present, is_inert_welcome=is_one_of_many)
    return [] if callback is None else [callback]


def _is_launched() -> bool:
    """Return whether this may be one process of several, of which others may be part of a trial.

    ``mpirun`` without ``-x KATIB_TRIAL_NAME`` passes the name on to its own machine only. There, the callback of one
    rank reads what is computed across ranks, so all ranks must have one, inert or not.
    """
    return process_rank(DEFAULT_RUNTIME.environ()).source != "default"


def _callbacks_of_trainer() -> list[object]:
    """Return the callbacks of the Trainer that is being made; Lightning does not hand them to us.

    ``_CallbackConnector.on_trainer_init`` has put the user's own into ``self.trainer.callbacks`` before it asks. One
    that is added later shows when training starts: ours then stands aside.
    """
    for frame in callers():
        if frame.f_code.co_name == "on_trainer_init":
            trainer = getattr(frame.f_locals.get("self"), "trainer", None)
            return list(getattr(trainer, "callbacks", None) or ())
    return []
