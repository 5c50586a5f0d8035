"""autolog: the callbacks of all three frameworks, turned on without touching the training code.

Lightning asks two groups of entry points for callbacks, so nothing is patched there. transformers gets a class of ours
among its defaults and integrations and a wrapper around ``CallbackHandler.add_callback``, Keras one around
``keras.Model.fit``. A framework that is not imported yet is patched when it is. Turning it off undoes all.
"""

from typing import TYPE_CHECKING, TypedDict

from katib_callbacks import settings
from katib_callbacks._autolog import state
from katib_callbacks._autolog.lightning import lightning_callbacks
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.recording.options import Metrics, RecordingArguments
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.settings import DEFAULT_RUNTIME

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from katib_callbacks.reporting.reporter import KatibReporter

__all__ = ["CallbackArguments", "autolog", "lightning_callbacks"]


class _Named(TypedDict, total=False):
    metrics: Metrics


class CallbackArguments(_Named, RecordingArguments, total=False):
    """The arguments of ``KatibReportCallback``, by name and in order."""

    reporter: "KatibReporter | None"


def autolog(*, disable: bool = False, **callback_arguments: "Unpack[CallbackArguments]") -> None:
    """Report what Lightning, Keras 3 and transformers train from now on in this process, or stop doing so.

    Trainers made and Keras models fitted after this call get a ``KatibReportCallback`` of their framework, unless they
    have one already. Frameworks may be imported before or after, and need not be installed; none is imported.
    transformers also learns ``report_to="katib"``. Outside a trial no callback is made. A training inside another one
    (a probe that a callback trains after each epoch) is not reported. Called again, it replaces the arguments for what
    comes. Where it is never called, ``KATIB_CALLBACKS_AUTOLOG=1`` turns it on for Lightning alone.

    In a distributed Lightning run call it in every process, as the callback must be in every process.

    Thread-safe. Blocks only while another thread is in the middle of importing one of the frameworks. Forked processes
    inherit it; spawned ones do not, but trainers that are sent to them keep their callbacks.

    Args:
        disable: Undo it. Callbacks that it made report nothing more; those of your own are not touched.
        **callback_arguments: As ``KatibReportCallback`` takes them, see
            :class:`katib_callbacks.recording.callback.ReportingCallback`. ``report="best"`` needs ``mode`` here:
            which framework will train is not known yet.

    Raises:
        ConfigurationError: An argument or environment variable that cannot be right; nothing is changed then.
        MetricValueError: A name that Katib cannot store; nothing is changed then.
    """
    for name in callback_arguments:
        if name not in CallbackArguments.__annotations__:
            from difflib import get_close_matches  # noqa: PLC0415  rarely needed

            known = ", ".join(CallbackArguments.__annotations__)
            nearest = get_close_matches(name, CallbackArguments.__annotations__, n=1)
            question = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ConfigurationError(f"autolog has no argument {name!r}, only disable, {known}{question}")
    if settings.flag("disable", disable, "", DEFAULT_RUNTIME):
        state.STATE.turn_off()
        return
    MetricRecorder(**callback_arguments)  # refuses what the callbacks would refuse
    state.STATE.turn_on(callback_arguments)
