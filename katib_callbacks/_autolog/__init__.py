"""autolog: the callbacks of all three frameworks, turned on without touching the training code.

What it hooks into, and leaves again:

- Lightning asks two groups of entry points for callbacks whenever a Trainer is made; ``pyproject.toml`` names
  :func:`lightning_callbacks` in both. Nothing is patched.
- transformers: a class of ours in ``transformers.trainer.DEFAULT_CALLBACKS`` and under ``"katib"`` in
  ``transformers.integrations.INTEGRATION_TO_CALLBACK``, and a wrapper around ``CallbackHandler.add_callback``, where
  the other callbacks can be seen.
- Keras: a wrapper around ``keras.Model.fit``, which all backends share.

A framework that is not imported yet is patched when it is. Every callback is the adapter's own
``KatibReportCallback``, made when a Trainer is made or a Keras model is fitted.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

from katib_callbacks import settings
from katib_callbacks._autolog.import_hook import AfterImport
from katib_callbacks._autolog.ownership import Ownership, is_ours
from katib_callbacks._autolog.patches import PATCHES, Patch
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError
from katib_callbacks.recording.callback import callers
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting.ranks import process_rank
from katib_callbacks.settings import DEFAULT_RUNTIME

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from katib_callbacks.reporting.reporter import KatibReporter

logger = logging.getLogger(__name__)


class CallbackArguments(TypedDict, total=False):
    """The arguments of ``KatibReportCallback``, by name."""

    metrics: "str | Sequence[str] | Mapping[str, str] | None"
    report: settings.Report | None
    monitor: str | None
    mode: settings.Mode | None
    after_training: settings.AfterTraining | None
    on_missing: settings.OnMissing | None
    on_nan: settings.OnNan | None
    on_error: settings.OnError | None
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
            known = ", ".join(CallbackArguments.__annotations__)
            raise ConfigurationError(f"autolog has no argument {name!r}, only disable, {known}")
    if settings.flag("disable", disable, "", DEFAULT_RUNTIME):
        _STATE.turn_off()
        return
    MetricRecorder(**callback_arguments)  # refuses what the callbacks would refuse
    _STATE.turn_on(callback_arguments)


class _State:
    """What autolog is in this process.

    Attributes:
        is_on: None until somebody says; then the environment decides, for Lightning.
    """

    def __init__(self) -> None:
        self.is_on: bool | None = None
        self._arguments: Mapping[str, Any] = {}
        self._switch = Ownership()
        self._has_said = False
        self._lock = threading.RLock()
        self._hook: AfterImport | None = None
        self._undo: list[Callable[[], None]] = []

    def turn_on(self, arguments: Mapping[str, Any]) -> None:
        """Make callbacks with these arguments from now on."""
        with self._lock:
            self._arguments = dict(arguments)
            self._has_said = False
            if not self._switch.is_on:
                self._switch = Ownership()
            was_on, self.is_on = self.is_on, True
            if was_on:
                return
            self._hook = hook = AfterImport({name: functools.partial(self._patch, p) for name, p in PATCHES.items()})
        hook.start()  # without the lock: it may wait for another thread's import, at whose end is _patch

    def turn_off(self) -> None:
        """Undo all of it."""
        with self._lock:
            self.is_on = False
            self._switch.turn_off()
            if self._hook is not None:
                self._hook.stop()
                self._hook = None
            while self._undo:
                self._undo.pop()()

    def _patch(self, patch: Patch, module: ModuleType) -> None:
        with self._lock:
            if not self.is_on:
                return
            try:
                self._undo.append(patch(module, self.callback))
            except AttributeError as error:
                logger.warning("autolog does not know this release of %s: %s", module.__name__.partition(".")[0], error)

    def is_asked(self) -> bool:
        """Say whether autolog is on in this process.

        Raises:
            ConfigurationError: ``KATIB_CALLBACKS_AUTOLOG`` is neither yes nor no.
        """
        return settings.is_autolog_on(DEFAULT_RUNTIME) if self.is_on is None else self.is_on

    def callback(self, adapter: str, present: Iterable[object], *, is_inert_welcome: bool = False) -> Any:
        """Make a callback of autolog's. Never raises: who calls this is a framework.

        Args:
            adapter: The framework's module in this package.
            present: The callbacks that are there already.
            is_inert_welcome: Whether to make one that will report nothing, too.

        Returns:
            None if autolog is off, if there is a callback of ours already, and outside a trial.
        """
        try:
            if not self.is_asked() or any(map(is_ours, present)):
                return None
            if not (self._has_something_to_report() or is_inert_welcome):
                return None
            callback = import_module(f"katib_callbacks.{adapter}").KatibReportCallback(**self._arguments)
            self._switch.mark(callback)
        except KatibCallbacksError as error:
            logger.warning("autolog adds no callback: %s", error)
        except Exception:
            logger.exception("Internal error in autolog, which adds no callback; training goes on.")
        else:
            return callback
        return None

    def _has_something_to_report(self) -> bool:
        """Say whether this is part of a trial; if not, it is logged once why nothing will come."""
        if settings.is_disabled(DEFAULT_RUNTIME):
            level, message, variable = logging.INFO, "%s is set: nothing will be reported.", settings.DISABLE
        else:
            reporter = self._arguments.get("reporter")
            name = settings.trial_name(None, DEFAULT_RUNTIME) if reporter is None else reporter.trial_name
            if name is not None or _shows_trainjob(reporter):
                return True
            level = logging.WARNING if settings.is_conspicuous(DEFAULT_RUNTIME) else logging.INFO
            message, variable = "Not in a Katib trial (%s is not set): nothing will be reported.", settings.TRIAL_NAME
        if not self._has_said:
            self._has_said = True
            logger.log(level, message, variable)
        return False


def _shows_trainjob(reporter: "KatibReporter | None") -> bool:
    """Say whether there is something to report outside a trial: the status of a TrainJob."""
    if DEFAULT_RUNTIME.variable(settings.TRAINER_SERVER_URL) is None:
        return False
    from katib_callbacks.reporting.reporter import KatibReporter  # noqa: PLC0415  there alone

    return (KatibReporter() if reporter is None else reporter).inert_reason is None


_STATE = _State()


def lightning_callbacks() -> list[Any]:
    """Answer Lightning, which asks whenever a Trainer is made, in every process that has this package installed.

    Returns:
        The callback, if this process asked for it and is part of a trial, and if the Trainer has none yet.
        Otherwise nothing; never raises, because that would break the Trainer.
    """
    try:
        if not _STATE.is_asked():
            return []
        present, is_one_of_many = _callbacks_of_trainer(), _is_launched()
    except KatibCallbacksError as error:
        logger.warning("autolog adds no callback: %s", error)
        return []
    except Exception:
        logger.exception("Internal error in autolog, which adds no callback; training goes on.")
        return []
    callback = _STATE.callback("lightning", present, is_inert_welcome=is_one_of_many)
    return [] if callback is None else [callback]


def _is_launched() -> bool:
    """Say whether this may be one process of several, of which others may be part of a trial.

    ``mpirun`` without ``-x KATIB_TRIAL_NAME`` passes the name on to its own machine only. There, the callback of one
    rank reads what is computed across ranks, so all ranks must have one, inert or not.
    """
    return process_rank(DEFAULT_RUNTIME.environ()).source != "default"


def _callbacks_of_trainer() -> list[object]:
    """Return the callbacks of the Trainer that is being made; Lightning does not hand them to us.

    Its ``_CallbackConnector.on_trainer_init(self, ...)`` has put the user's own into ``self.trainer.callbacks`` before
    it asks. Callbacks that are added later, or cannot be seen, show when training starts: ours then stands aside.
    """
    for frame in callers():
        if frame.f_code.co_name == "on_trainer_init":
            trainer = getattr(frame.f_locals.get("self"), "trainer", None)
            return list(getattr(trainer, "callbacks", None) or ())
    return []
