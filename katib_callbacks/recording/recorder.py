"""MetricRecorder: what the three adapters share, from a framework's values to the rows that the reporter delivers.

An adapter asks its framework three things (is this a real epoch, is this rank zero, is it over?) and hands over names
and raw values. They stay as they are, on their device, until their row is closed or the training is over: no hook waits
for an accelerator in the middle of an epoch, and each value is converted once at most.

The module is long because it is all that an adapter talks to; each decision is made in a module of its own beside it.
"""

import functools
import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.recording.doubts import Doubts
from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.options import Metrics, RecordingArguments, resolve_options
from katib_callbacks.recording.rows import RowBuffer, Values
from katib_callbacks.recording.selection import Selection
from katib_callbacks.recording.stopping import Stopping, is_any_told
from katib_callbacks.recording.thinning import readable
from katib_callbacks.recording.voice import Voice
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.progress import Progress
from katib_callbacks.reporting.ranks import ProcessRank, announce_silence, process_rank
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime
from katib_callbacks.sinks.auto import DISABLED, NOWHERE
from katib_callbacks.sinks.katib.asking import GO_ON, Decision

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from katib_callbacks.reporting.receipt import ReportReceipt
    from katib_callbacks.reporting.reporter import KatibReporter
    from katib_callbacks.reporting.run import ReporterRun

logger = logging.getLogger(__name__)

_INTERNAL_ERROR = "Internal error while recording metrics; training goes on."
"""A mistake of ours stays away from the training that called."""


def never(_name: str) -> bool:
    """Return False for every name."""
    return False


def always(_name: str) -> bool:
    """Return True for every name."""
    return True


class MetricRecorder:
    """Buffers and reduces the metrics of one training run after another, and has them delivered.

    Not thread-safe: a framework calls its callbacks from one thread. Pickles, with the values it holds.

    Args:
        reporter: Used, and left open. Otherwise one is made from the environment now, and each run has sinks of its
            own, which are closed after it.
        may_follow: Tells of a name that training has not shown whether an evaluation after it may bring it.
        may_be_old: Tells of a name whether a last value from before the training's end is worth a warning.
        **arguments: The other arguments of :class:`katib_callbacks.recording.callback.ReportingCallback`.

    Attributes:
        is_recording: Whether the current run is recorded: to be reported, or outside a trial to see which names appear.
        report: The reduction.
        monitor: The name that decides which row is the best one; None unless that is what is reported.
        mode: The direction in which ``monitor`` is better in the current run.
        selection: The names; while it ``has_all`` of them, nothing needs to be found out about one that is missing.
        may_stop_early: Whether there is a policy: then each epoch ends, on every rank, with what :meth:`ask` answers on
            rank zero.
        receipt: The answer to the last delivery.
    """

    def __init__(
        self,
        metrics: Metrics = None,
        *,
        reporter: "KatibReporter | None" = None,
        is_bookkeeping: Callable[[str, Collection[str]], bool] | None = None,
        is_mode_deferred: bool = False,
        may_follow: Callable[[str], bool] = never,
        may_be_old: Callable[[str], bool] = always,
        _runtime: Runtime = DEFAULT_RUNTIME,
        **arguments: "Unpack[RecordingArguments]",
    ) -> None:
        from katib_callbacks.reporting.reporter import KatibReporter  # noqa: PLC0415  the recorder can be imported without it

        self._runtime = settings.heeded(_runtime)
        options = resolve_options(metrics, arguments, self._runtime, is_mode_deferred=is_mode_deferred)
        self._options = options
        self.selection = Selection(options, is_bookkeeping, Voice())
        self._numbers = Numbers(self.selection, options.on_nan)
        self._doubts = Doubts(options, self.selection, self._numbers, may_follow, may_be_old)
        self.report = options.report
        self.monitor = options.monitor
        self.mode = options.mode
        self.may_stop_early = options.early_stopping is not None and not options.is_disabled
        if reporter is not None and not isinstance(reporter, KatibReporter):
            raise ConfigurationError(f"reporter must be a KatibReporter, not {reporter!r}")
        self._is_reporter_lent = reporter is not None
        self._reporter = KatibReporter(_runtime=self._runtime) if reporter is None else reporter
        self.receipt: ReportReceipt | None = None
        self._run: ReporterRun | None = None
        self._rank: ProcessRank | None = None
        self._late: Collection[str] = ()
        self._is_dry_run = False
        self._restored: dict[str, Any] | None = None
        self.abandon()

    def abandon(self) -> None:
        """Note that training failed or was interrupted: nothing of it is delivered, now or later."""
        self._end_run()
        self._stopping: Stopping | None = None
        self.selection.reset()
        self._numbers.left_out = {}
        self._rows = RowBuffer(self.report, self.monitor, self.mode, self._numbers)
        self._pending: list[MetricLog] | None = None
        self.is_recording = self._is_finished = False

    def speak_with(self, voice: Voice) -> None:
        """Warn with a voice that several recorders share."""
        self.selection.voice = voice

    def __repr__(self) -> str:
        names = None if self._options.names is None else dict(self._options.names)
        return f"(metrics={names}, report={self.report!r}, monitor={self.monitor!r}, mode={self.mode!r})"

    @property
    def is_active(self) -> bool:
        """Whether the current run will be reported: it is part of a trial and this is its rank zero."""
        return self.is_recording and not self._is_dry_run

    @property
    def trial_name(self) -> str | None:
        """The trial that is reported for; None outside one."""
        return self._reporter.trial_name

    @property
    def has_values(self) -> bool:
        """Whether the current run has a value of anything that is reported."""
        return bool(self._rows.latest.values)

    @property
    def row_count(self) -> int:
        """The number of rows of the current run."""
        return self._rows.latest.row_count

    @property
    def shows_progress(self) -> bool:
        """Whether a sink shows how far a training is, if one is recorded."""
        return not self._options.is_disabled and self._reporter.shows_progress

    @property
    def progress(self) -> Progress | None:
        """The progress of the current run, shown by sinks; None where no sink shows it."""
        return None if self._run is None else self._run.progress

    @property
    def _pod(self) -> Runtime | None:
        """The runtime whose termination message says why a metric has no number; None outside a trial."""
        return self._runtime if self.is_active else None

    # -- one training run ------------------------------------------------------------------------------------------

    def start(
        self,
        framework: ProcessRank | None,
        *,
        mode: settings.Mode | None = None,
        late: Collection[str] = (),
    ) -> None:
        """Begin a run: forget the one before, and find out whether this process is to report.

        ``framework`` and ``mode`` are what the framework tells of this process and where the user gave no mode; sinks
        in ``late`` are shown the end only.
        """
        if self.report == "best" and self._options.mode is None:  # each run has a word of its own on it
            if mode is None:
                raise ConfigurationError("report='best' needs mode: 'min' or 'max'")
            self.mode = mode
        self.abandon()
        restored, self._restored = self._restored, None
        self._is_dry_run = False
        self.is_recording = self._find_out_whether_to_record(framework)
        if self.is_active:
            self._late = late
            self._run = self._open_run()
            policy, names = self._options.early_stopping, self._options.names
            if policy is not None:
                self._stopping = Stopping.begin(self._run, policy, names, self.selection.voice)
            if restored is not None:
                self._rows.restore(restored)

    def _find_out_whether_to_record(self, framework: ProcessRank | None) -> bool:
        voice = self.selection.voice
        where = NOWHERE if self._options.is_disabled else self._reporter.whereabouts
        rank = process_rank(self._runtime.environ(), framework=framework)
        if where.nothing is not None:
            if rank.is_global_zero:  # one line, however many processes there are
                voice.log(where.level_of_nothing(self._runtime), "%s", where.why_nothing(self.trial_name))
            self._is_dry_run = rank.is_global_zero and where.nothing != DISABLED
            return self._is_dry_run
        if not rank.is_global_zero and rank not in {framework, self._rank} and voice.is_new(rank):
            announce_silence(rank, is_in_trial=True, runtime=self._runtime)
        self._rank = rank
        return rank.is_global_zero

    def _open_run(self) -> "ReporterRun":
        # A run's own sinks have the options as they were resolved; a second look at the environment, and at the files
        # that it names, could fail, and then there were no reporter to try again or to write the spool.
        return self._reporter.open_run(rank=self._rank, late=self._late, is_own=not self._is_reporter_lent)

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def begin_progress(self, share: Callable[..., float | None], *arguments: Any) -> None:
        """Begin to show how far the training is, after :meth:`start`; :attr:`progress` is None where nobody is told.

        ``share`` returns what was done before this process began, and is called only where somebody is told.
        """
        if self._run is None:
            return
        try:
            self._run.begin_progress(
                functools.partial(share, *arguments),
                lambda: self._numbers.shown(self._numbers.convert(self._rows.latest.values)),
            )
        except Exception:
            logger.exception(_INTERNAL_ERROR)

    def record(
        self, values: Mapping[str, Any], *, row: Hashable = None, is_awaited: Callable[[str], bool] = never
    ) -> None:
        """Take the framework's values that are fresh now, left on their device.

        Those of another ``row`` than the last one begin a new row; None adds to the last one. ``is_awaited`` tells of
        a name that has not appeared whether it is too early to miss it.
        """
        if not self.is_recording or not values:
            return
        try:
            selected = self.selection.choose(values)
            run, rows = self._run, self._rows
            if run is not None and run.progress is not None:
                selected = self._numbers.convert(selected)
            is_new_row = rows.add(selected, key=row, now=self._runtime.now)
            if run is not None and run.progress is not None:
                run.progress.update(self._numbers.shown(selected), rows.place)
            if is_new_row and not self.selection.has_all and rows.latest.row_count > 1:  # so the first row is complete
                self._doubts.warn_early(rows.latest.values, is_awaited)
        except Exception:
            logger.exception(_INTERNAL_ERROR)

    def ask(self, step: int) -> Decision:
        """Ask the DB manager at an epoch's end whether to stop; blocks for 2 s at most, and never raises.

        Go on without a policy, off rank zero, outside a trial, where the last row has no objective, and where nobody
        answers. ``step`` increases from epoch to epoch.
        """
        try:
            return GO_ON if self._stopping is None else self._stopping.ask(step, self._rows, self._numbers)
        except Exception:
            logger.exception(_INTERNAL_ERROR)
            return GO_ON

    def is_to_stop(self, step: int, *, jax: Any = None) -> bool:
        """Ask as :meth:`ask` does, and return what all processes of the training agree upon: each has to call this.

        Only where :attr:`may_stop_early`. ``jax`` is the module, where JAX trains; elsewhere torch's group is used.
        """
        answer = is_any_told(lambda: self.ask(step).stop, jax, self._runtime.environ())
        if answer is None:
            self.selection.voice.warn_once(
                "early stopping",
                "The processes of this training cannot agree upon early stopping, so it goes on to its end.",
            )
        return bool(answer)

    def keep(self, model: Values | None = None, *, scores: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Note that a model is kept in the place of the one before: that of these values, by default as it is now.

        ``scores`` are what it was kept for, where that may be younger than the latest values.
        """
        if not self.is_recording:
            return
        try:
            if model is not None:
                model.values = self.selection.choose(model.values)
            self._rows.keep(model, self.selection.choose(scores))
        except Exception:
            logger.exception(_INTERNAL_ERROR)

    def keep_none(self) -> None:
        """Note that no model is kept after all."""
        self._rows.kept = None

    def finish(self, *, is_restored: bool = False) -> None:
        """Note that training ended normally, and whether the framework has put the kept model back."""
        if not self.is_recording:
            return
        try:
            self._is_finished = True
            is_kept_wanted = is_restored or self.report == "kept"
            rows = self._rows.reduced(self._runtime.now(), is_kept_wanted=is_kept_wanted)
            self._pending = readable([self._numbers.logs(row.values, row.timestamp) for row in rows])
            if self.report != "history":
                self._doubts.check_model(self._rows, is_kept_wanted=is_kept_wanted)
        except Exception:
            logger.exception(_INTERNAL_ERROR)

    def deliver(self) -> None:
        """Send what :meth:`finish` left, if anything; blocks up to the reporter's deadline."""
        logs, self._pending = self._pending, None
        if logs is None:
            return
        try:
            if self.progress is not None:
                self.progress.finish()
            missing = self._doubts.check_missing(self._rows.latest.values, self._pod) if self.selection.seen else None
            if not logs and not self._numbers.left_out and not self._is_dry_run:
                whose = "" if self.trial_name is None else f" of trial {self.trial_name}"
                self.selection.voice.warn("Training%s ended without a metric to report.", whose)
                termination.explain(self._pod, termination.NOTHING_SHOWN, "training ended without a metric to report")
            self._send(logs)
            if missing is not None:
                raise ConfigurationError(missing)  # now that what there is has been delivered
        finally:
            self._end_run()

    def evaluated(self, values: Mapping[str, Any], *, is_validation: bool) -> None:
        """Take the result of an evaluation after training, and send what ``after_training`` asks for; blocks.

        Without a training before, in this process, it does nothing. Results that are not on validation data count only
        where they are named.
        """
        if not (self.is_recording and self._is_finished) or self._options.after_training == "ignore":
            return
        if self.selection.is_everything and not is_validation:
            return
        try:
            latest = self._rows.latest.values
            fresh = self.selection.choose(values)
            if self._options.after_training == "missing":
                fresh = {name: value for name, value in fresh.items() if name not in latest}
            latest.update(fresh)
            self._doubts.withdraw(fresh, self._pod)
            logs = self._numbers.logs(fresh, self._runtime.now())
        except Exception:
            logger.exception(_INTERNAL_ERROR)
            return
        try:
            self._send(logs)
        finally:
            self._end_run()

    # -- delivery --------------------------------------------------------------------------------------------------

    def _send(self, logs: list[MetricLog]) -> None:
        self._numbers.check_left_out(self._pod)
        if not logs or self._is_dry_run:
            return
        if self.selection.is_everything:
            self.selection.voice.warn_once(
                "no names",
                "No metrics were named, so all are reported: %s. Name those that the experiment declares: Katib's UI "
                "shows any other in the objective's column.",
                ", ".join(dict.fromkeys(log.name for log in logs)),
            )
        self.receipt = None
        try:
            if self._run is None:  # an evaluation after training
                self._run = self._open_run()
            self.receipt = self._run.deliver(logs)
            if self._stopping is not None:
                self.receipt = replace(self.receipt, stopped=self._stopping.decision.reason or None)
                self._stopping.conclude()
        except Exception as error:
            if self._options.on_error == "raise":
                raise
            if isinstance(error, KatibCallbacksError):
                logger.warning("%s", error)
            else:
                logger.exception("Internal error while reporting metrics.")

    # -- resumed runs ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats; empty where nothing is recorded."""
        return {"trial": self.trial_name, **self._rows.state()} if self.is_active else {}

    def restore(self, state: Mapping[str, Any] | None) -> bool:
        """Hand the next :meth:`start` what :meth:`state` returned in the run that it resumes; return whether it fits.

        Rows belong to a trial: those of another one, from whose checkpoint this one starts, are left behind.
        """
        self._restored = dict(state) if state and state.get("trial") == self.trial_name else None
        if state and self._restored is None:
            logger.info("The checkpoint has rows of trial %r, which are left behind.", state.get("trial"))
        return self._restored is not None
