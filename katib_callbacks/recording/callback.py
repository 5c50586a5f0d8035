"""ReportingCallback: the arguments and attributes that the three frameworks' callbacks have in common."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.recording.recorder import MetricRecorder

if TYPE_CHECKING:
    from katib_callbacks.reporting.receipt import ReportReceipt
    from katib_callbacks.reporting.reporter import KatibReporter


logger = logging.getLogger(__name__)

_MAX_FRAMES = 10
"""How far up the stack the list of callbacks is looked for; it calls hooks directly."""


class ReportingCallback:
    """A mixin before a framework's own callback class.

    Every option is None by default and resolved once, when the callback is made: the argument, then its environment
    variable (``KATIB_CALLBACKS_REPORT`` and so on), then the default named here. Outside a trial nothing is
    sent, and it is only checked whether the named metrics appear.

    Args:
        metrics: What to report: one name, several, or ``{name in Katib: name in the framework}``. Default: every
            scalar that the framework shows, its bookkeeping aside. Better name them: Katib's UI shows metrics that
            the experiment does not declare in the objective's column.
        report: ``"final"`` (default): the values of the model that the trainer holds when training ends: the last
            value of each metric, or where the framework has put an earlier model back, those of its row. ``"kept"``:
            the values of the model that the run keeps on disk or puts back; if it keeps none, as ``final``.
            ``"best"``: the values of all metrics at the row where ``monitor`` was best. ``"history"``: every row's
            fresh values, with that row's time. Katib takes the minimum of a minimised objective and the maximum of a
            maximised one by default, so ``history`` optimises the best row and ``final`` the last one; ``best`` and
            ``kept`` keep the metrics of one row together. The medianstop algorithm averages each trial's first rows:
            it needs ``history``.
        monitor: For ``report="best"``: the framework's name of the metric that decides.
        mode: For ``report="best"``: ``"min"`` or ``"max"``. transformers' ``greater_is_better`` may say it instead.
        after_training: What an evaluation after training adds, in frameworks that show it to callbacks. ``"missing"``
            (default): the metrics that training itself never produced. ``"update"``: all of them again, of which
            Katib then takes the better. ``"ignore"``: nothing.
        on_missing: If a named metric never appeared: ``"warn"`` (default), ``"raise"`` or ``"ignore"``.
        on_nan: NaN and infinite values: ``"skip"`` (default) leaves them out with a warning, ``"raise"``, or
            ``"send"``. Katib takes a NaN that comes first for both minimum and maximum.
        on_error: If the delivery failed for good: ``"warn"`` (default) or ``"raise"``. What is made to raise does so
            after training, on rank zero alone.
        early_stopping: A policy by which the DB manager of this package may end the training at an epoch's end, such as
            ``"medianstop,start_step=4,objective=accuracy,type=maximize"`` or ``"asha,reduction_factor=3"``. The
            objective is the name in Katib, and by default the only metric; the type is ``mode``'s by default.
        reporter: Used instead of one made from the environment, and left open.

    Attributes:
        receipt: What the last delivery answered; None before it, after one that failed, and off rank zero.

    Raises:
        ConfigurationError: An argument or environment variable that cannot be right.
        MetricValueError: A name that Katib cannot store.
    """

    _is_mode_deferred = False
    _lent: frozenset[str] = frozenset()  # attributes that hold what the framework lends to every callback it calls
    _autolog: Any = None  # katib_callbacks._autolog.ownership.Ownership, in a callback that autolog made

    if not TYPE_CHECKING:  # type checkers read __init__

        def __new__(cls, *args: object, **kwargs: object) -> Any:
            """Refuse wrong arguments in the name of the class that the user knows."""
            if (args or kwargs) and cls.__init__ is ReportingCallback.__init__:
                _check_call(cls, args, kwargs)
            return super().__new__(cls)

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        *,
        report: settings.Report | None = None,
        monitor: str | None = None,
        mode: settings.Mode | None = None,
        after_training: settings.AfterTraining | None = None,
        on_missing: settings.OnMissing | None = None,
        on_nan: settings.OnNan | None = None,
        on_error: settings.OnError | None = None,
        early_stopping: str | None = None,
        reporter: "KatibReporter | None" = None,
    ) -> None:
        super().__init__()
        self._recorder = MetricRecorder(
            metrics,
            report=report,
            monitor=monitor,
            mode=mode,
            after_training=after_training,
            on_missing=on_missing,
            on_nan=on_nan,
            on_error=on_error,
            early_stopping=early_stopping,
            reporter=reporter,
            is_bookkeeping=self._is_bookkeeping,
            is_mode_deferred=self._is_mode_deferred,
            may_follow=self._may_follow,
            may_be_old=self._may_be_old,
        )
        self._prepare()

    def _prepare(self) -> None:
        """Do what depends on the options, before the framework looks at the callback."""

    @property
    def receipt(self) -> "ReportReceipt | None":
        """The answer to the last delivery; None before it, after one that failed, and off rank zero."""
        return self._recorder.receipt

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind in copies and pickles what was lent: the model, and with it the trainer."""
        return {name: value for name, value in self.__dict__.items() if name not in self._lent}

    def _is_superfluous(self, callbacks: Iterable[object] = ()) -> bool:
        """Return whether autolog made this callback, and the run that begins is not to be reported by it.

        Args:
            callbacks: Those of the run, as far as the framework shows them.
        """
        return self._autolog is not None and not self._autolog.wants(callbacks)

    @staticmethod
    def _is_bookkeeping(name: str, names: Collection[str]) -> bool:
        """Return whether the framework shows this name, among others, for its own purposes."""
        return False

    def _may_follow(self, name: str) -> bool:
        """Return whether an evaluation after training may bring a name that training has not shown."""
        return False

    @staticmethod
    def _may_be_old(name: str) -> bool:
        """Return whether the last value of this name is worth a word if it is not of the end of the training."""
        return True


def is_kind(callback: object, name: str, *modules: str) -> bool:
    """Return whether a callback is of a framework's class, by its name and the last part of its module's name.

    A framework may be there in several packages; others may have attributes of the same names.
    """
    kinds = (kind for kind in type(callback).__mro__ if kind.__name__ == name)
    return any(kind.__module__.rpartition(".")[2] in modules for kind in kinds)


def first_keeper(keepers: Sequence[Any], why: str) -> Any:
    """Return the first of several callbacks that keep models, and log that it counts."""
    if len(keepers) > 1:
        message = "report='kept': %d checkpoints %s; the first one counts, with %r."
        logger.warning(message, len(keepers), why, keepers[0].monitor)
    return keepers[0]


def callbacks_beside(callback: object) -> list[Any]:
    """Return the callbacks of the run that calls ``callback``, itself included, where its hooks are not handed them."""
    for frame in islice(callers(), 1, 1 + _MAX_FRAMES):
        callbacks = getattr(frame.f_locals.get("self"), "callbacks", None)
        if isinstance(callbacks, list) and any(other is callback for other in callbacks):
            return callbacks
    return []


def _check_call(kind: type, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    import inspect  # noqa: PLC0415  frameworks have loaded it
    from difflib import get_close_matches  # noqa: PLC0415  as above

    signature = inspect.signature(kind.__init__)  # type: ignore[misc]  # of a class that has it from this module
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        unknown = [name for name in kwargs if name not in signature.parameters][:1]
        nearest = [match for name in unknown for match in get_close_matches(name, signature.parameters, n=1)]
        question = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise TypeError(f"{kind.__name__}() {error}{question}") from None


def callers() -> Iterator[FrameType]:
    """Yield the frames of this thread, the inmost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  what inspect and logging use
    while frame is not None:
        yield frame
        frame = frame.f_back
