"""MetricRecorder: what the three adapters share, from selecting names to handing rows to the reporter.

An adapter asks its framework three things (is this a real epoch, is this rank zero, is it over?) and hands over names
and raw values. They stay as they are, on their device, until their row is closed or the training is over: no hook waits
for an accelerator in the middle of an epoch, and each value is converted once at most.

What the reductions mean to Katib, which computes min, max and latest of the rows and by default takes the min of a
minimised objective and the max of a maximised one:

- ``final``: one row a metric, so min, max and latest are the same number: that of the trained model.
- ``best``: one row a metric, all from the epoch where ``monitor`` was best, so they belong together.
- ``history``: a row a metric and epoch. Katib's default then optimises the best epoch, not the last one. The medianstop
  algorithm compares first rows, so it needs ``history``.
"""

import functools
import logging
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError, MetricValueError
from katib_callbacks.metrics import MetricLog, check_name, format_value, to_number
from katib_callbacks.recording.rows import RowBuffer
from katib_callbacks.reporting.ranks import ProcessRank, announce_silence, process_rank
from katib_callbacks.reporting.run import LiveReporter
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime

if TYPE_CHECKING:
    from katib_callbacks.reporting.progress import Progress
    from katib_callbacks.reporting.reporter import KatibReporter, ReportReceipt

logger = logging.getLogger(__name__)

_INTERNAL_ERROR = "Internal error while recording metrics; training goes on."

_MAX_CHOSEN = 64
"""Frameworks show the same few sets of names again and again, so what is chosen of each is kept, for so many."""

_VALIDATION_PATIENCE_ROWS = 3
"""A validation metric may come every few epochs only, so it is missed after so many rows; others after the first."""


class MetricRecorder:
    """Selects, renames, buffers and reduces the metrics of one training run after another, and has them delivered.

    Not thread-safe: a framework calls its callbacks from one thread. Pickles, with the values it holds.

    Args:
        metrics: Which metrics, see :class:`katib_callbacks.recording.callback.ReportingCallback` for this and the next
            ones.
        report: The reduction.
        monitor: For ``best``: the framework's name of the metric that decides.
        mode: For ``best``: whether less or more is better. May be left to :meth:`start` if ``is_mode_deferred``.
        after_training: What an evaluation after training adds.
        on_missing: What to do if a named metric never appeared.
        on_nan: What to do with NaN and the infinities.
        on_error: What to do if the delivery failed.
        reporter: Used, and left open. Otherwise one is made from the environment now, and a copy of it is used for each
            delivery and closed after it.
        is_bookkeeping: Given a name and all names beside it, says whether the framework shows it for its own purposes;
            such metrics are reported only when they are named.
        is_mode_deferred: Whether the framework itself may tell the mode when training starts.
        _runtime: For tests.

    Raises:
        ConfigurationError, MetricValueError: An argument, or an environment variable, cannot be right.
    """

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
        reporter: "KatibReporter | None" = None,
        is_bookkeeping: Callable[[str, Collection[str]], bool] | None = None,
        is_mode_deferred: bool = False,
        _runtime: Runtime = DEFAULT_RUNTIME,
    ) -> None:
        pick = functools.partial(_pick, _runtime)
        self._selection = settings.metric_selection(metrics, _runtime)
        self._report: settings.Report = pick(settings.Report, "report", report, "final")
        self._monitor = settings.text(monitor, settings.MONITOR, _runtime)
        self._mode: settings.Mode | None = pick(settings.Mode, "mode", mode, None)
        self._is_mode_asked = self._mode is not None
        self._after_training = pick(settings.AfterTraining, "after_training", after_training, "missing")
        self._on_missing = pick(settings.OnMissing, "on_missing", on_missing, "warn")
        self._on_nan = pick(settings.OnNan, "on_nan", on_nan, "skip")
        self._on_error = pick(settings.OnError, "on_error", on_error, "warn")
        self._is_bookkeeping = is_bookkeeping
        self._runtime = _runtime
        if reporter is not None and (isinstance(reporter, type) or not hasattr(reporter, "report_logs")):
            raise ConfigurationError(f"reporter must be a KatibReporter, not {reporter!r}")
        self._reporter = self._reporter_of_environment() if reporter is None else reporter
        self._is_reporter_lent = reporter is not None

        for name in self._selection or ():
            check_name(name)
        if self._report == "best":
            if self._monitor is None:
                raise ConfigurationError("report='best' needs monitor, the framework's name of the metric that decides")
            if self._mode is None and not is_mode_deferred:
                raise ConfigurationError("report='best' needs mode: 'min' or 'max'")
        else:
            if monitor is not None or mode is not None:
                raise ConfigurationError(f"monitor and mode belong to report='best', not to report={self._report!r}")
            self._monitor = None  # a cluster-wide variable need not fit every script
        self._is_disabled = settings.is_disabled(_runtime)
        self._trial_name = self._reporter.trial_name
        self._inert_reason: str | None = getattr(
            self._reporter, "inert_reason", None if self._trial_name else f"{settings.TRIAL_NAME} is not set"
        )

        self._live = LiveReporter(self._reporter, is_lent=self._is_reporter_lent)
        self.receipt: ReportReceipt | None = None
        self._is_active = False
        self._rank: ProcessRank | None = None
        self._restored: dict[str, Any] | None = None
        self._warned: set[str] = set()
        self._chosen: dict[tuple[str, ...], list[str]] = {}  # by what was shown
        self._reset()

    def _reset(self) -> None:
        self._rows = RowBuffer(self._report, self._monitor, self._mode, self._number)
        self._seen: dict[str, None] = {}
        self._has_all = False
        self._pending: list[MetricLog] | None = None
        self._nonfinite: dict[str, float] = {}
        self._is_finished = False

    def __repr__(self) -> str:
        return f"(metrics={self._selection}, report={self._report!r}, monitor={self._monitor!r}, mode={self._mode!r})"

    @property
    def is_active(self) -> bool:
        """Whether the current run is recorded: it is part of a trial and this is its rank zero."""
        return self._is_active

    @property
    def monitor(self) -> str | None:
        """The name that decides which row is the best one; None unless that is what is reported."""
        return self._monitor

    # -- one training run ------------------------------------------------------------------------------------------

    def start(self, framework: ProcessRank | None, *, mode: settings.Mode | None = None) -> None:
        """Begin a run: forget the one before, and find out whether this process is to report.

        Args:
            framework: What the framework says of this process; None if it has no word of its own on it.
            mode: What the framework says of ``mode``, where the user did not.

        Raises:
            ConfigurationError: ``best`` without a mode.
        """
        if self._report == "best" and not self._is_mode_asked:  # each run has a word of its own on it
            if mode is None:
                raise ConfigurationError("report='best' needs mode: 'min' or 'max'")
            self._mode = mode
        self._reset()
        restored, self._restored = self._restored, None
        self._is_active = self._find_out_whether_to_report(framework)
        if self._is_active and restored is not None:
            self._rows.restore(restored)

    def _find_out_whether_to_report(self, framework: ProcessRank | None) -> bool:
        if self._is_disabled:
            logger.info("%s is set: nothing will be reported.", settings.DISABLE)
            return False
        rank = process_rank(self._runtime.environ(), framework=framework)
        if self._inert_reason is not None:
            if rank.is_global_zero:  # one line, however many processes there are
                level = logging.WARNING if settings.is_conspicuous(self._runtime) else logging.INFO
                where = "a Katib trial" if self._trial_name is None else "reach of a sink"
                logger.log(level, "Not in %s (%s): nothing will be reported.", where, self._inert_reason)
            return False
        if not rank.is_global_zero and rank not in {framework, self._rank}:  # once, not for every run
            announce_silence(rank, is_in_trial=True)
        self._rank = rank
        return rank.is_global_zero

    @property
    def progress(self) -> "Progress | None":
        """What tells the sinks how far the current run is; None where nobody is told."""
        return self._live.progress

    @property
    def takes_progress(self) -> bool:
        """Whether a sink shows how far a training is, if one is recorded."""
        return not self._is_disabled and self._live.is_wanted

    def begin_progress(
        self, share: Callable[..., float | None], *arguments: Any, aside: Mapping[str, str] | None = None
    ) -> None:
        """Begin to show how far the training is, after :meth:`start`; :attr:`progress` is None where nobody is told.

        Args:
            share: Returns the share that was done before this process began, 0 to 1; None if it cannot be known. Is
                asked only where somebody is told.
            *arguments: What it is called with.
            aside: Names of sinks that get nothing of this training, and why.
        """
        self._live.end()
        self._live.aside = dict(aside or {})
        if not self._is_active or not self.takes_progress:
            return
        try:
            self._live.begin(
                functools.partial(share, *arguments), lambda: self._shown(self._as_numbers(self._rows.latest))
            )
        except Exception:  # as in record
            logger.exception(_INTERNAL_ERROR)

    def _as_numbers(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Convert now what is shown during training, and then need not be converted again."""
        numbers = ((name, self._number(name, value)) for name, value in values.items())
        return {name: number for name, number in numbers if number is not None}

    def _shown(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return what of an epoch's numbers is reported, by the names in Katib."""
        pairs = self._selection.items() if self._selection is not None else [(name, name) for name in numbers]
        return {
            katib_name: numbers[name]
            for katib_name, name in pairs
            if name in numbers and (self._on_nan == "send" or math.isfinite(numbers[name]))
        }

    def record(
        self, values: Mapping[str, Any], *, row: Hashable = None, is_awaited: Callable[[str], bool] | None = None
    ) -> None:
        """Take the values that are fresh now.

        Args:
            values: The framework's names and scalars, left on their device. Not kept or changed itself.
            row: Which row they belong to, such as the epoch's number. Values of another row than the last one begin a
                new row; None adds to the last one.
            is_awaited: Says of a name that has not appeared that it is too early to miss it, where the framework
                knows.
        """
        if not self._is_active or not values:
            return
        try:
            if not self._has_all:  # the messages alone need them
                self._seen.update(dict.fromkeys(name for name in values if isinstance(name, str)))
            selected = self._selected(values)
            if self.progress is not None:
                selected = self._as_numbers(selected)
                self.progress.update(self._shown(selected))
            is_new_row = self._rows.add(selected, key=row, now=self._runtime.now)
            if is_new_row and not self._has_all and self._rows.row_count > 1:  # so the first row is complete
                self._warn_early(is_awaited)
        except Exception:  # a mistake of ours stays away from the training that called
            logger.exception(_INTERNAL_ERROR)

    def _selected(self, values: Mapping[str, Any]) -> dict[str, Any]:
        shown = tuple(values)
        names = self._chosen.get(shown)
        if names is None:
            if len(self._chosen) == _MAX_CHOSEN:
                self._chosen.clear()
            names = self._chosen[shown] = self._choose(shown)
        # Most frameworks show floats: no call for each of them.
        return {name: value if type(value := values[name]) is float else _detached(value) for name in names}

    def _choose(self, shown: Collection[str]) -> list[str]:
        if self._selection is None:
            ignored = self._is_bookkeeping
            names = [name for name in shown if self._is_name(name) and (ignored is None or not ignored(name, shown))]
        else:
            names = [name for name in self._selection.values() if name in shown]
        if self._monitor is not None and self._monitor in shown:
            names.append(self._monitor)
        return names

    def _is_name(self, name: object) -> bool:
        """Say whether a key of what is shown is a name at all; what other callbacks add may have any key."""
        if isinstance(name, str):
            return True
        kind = type(name).__name__
        self._warn_once(repr(name), "Not reported: a metric's name must be a str, not %s: %r", kind, name)
        return False

    def finish(self) -> None:
        """Note that training ended normally. What is known now will be delivered by :meth:`deliver`."""
        if not self._is_active:
            return
        try:
            self._is_finished = True
            rows = self._rows.reduced(self._runtime.now())
            self._pending = [log for row in rows for log in self._to_logs(row.values, row.timestamp)]
            if self._report == "best" and self._rows.latest and not self._rows.has_best:
                logger.warning("%r never had a finite value, so the final values are reported.", self._monitor)
        except Exception:  # as in record
            logger.exception(_INTERNAL_ERROR)

    def abandon(self) -> None:
        """Note that training failed or was interrupted: nothing of it is delivered, now or later."""
        self._reset()
        self._is_active = False
        self._live.end()

    def deliver(self) -> None:
        """Send what :meth:`finish` left, if anything; blocks up to the reporter's budget.

        Raises:
            ConfigurationError: A named metric never appeared and ``on_missing`` is ``raise``.
            MetricValueError: A value is not finite and ``on_nan`` is ``raise``.
            KatibCallbacksError: The delivery failed and ``on_error`` is ``raise``.
        """
        logs, self._pending = self._pending, None
        if logs is None:
            return
        try:
            if self.progress is not None:
                self.progress.finish()
            if self._seen:
                self._check_missing()
            if not logs and not self._nonfinite:
                whose = "" if self._trial_name is None else f" of trial {self._trial_name}"
                logger.warning("Training%s ended without a metric to report.", whose)
            self._send(logs)
        finally:
            self._live.end()

    def evaluated(self, values: Mapping[str, Any], *, is_validation: bool) -> None:
        """Take the result of an evaluation after training, and send what ``after_training`` asks for; blocks.

        Without a training before, in this process, it does nothing.

        Args:
            values: The framework's names and scalars.
            is_validation: Whether the evaluation is on validation data. Other results count only where they are named.

        Raises:
            As :meth:`deliver`.
        """
        if not (self._is_active and self._is_finished) or self._after_training == "ignore":
            return
        if self._selection is None and not is_validation:
            return
        try:
            fresh = self._selected(values)
            if self._after_training == "missing":
                fresh = {name: value for name, value in fresh.items() if name not in self._rows.latest}
            self._rows.latest.update(fresh)
            logs = self._to_logs(fresh, self._runtime.now())
        except Exception:  # as in record
            logger.exception(_INTERNAL_ERROR)
            return
        self._send(logs)

    # -- values ----------------------------------------------------------------------------------------------------

    def _to_logs(self, values: Mapping[str, Any], timestamp: datetime) -> list[MetricLog]:
        pairs = self._selection.items() if self._selection is not None else [(name, name) for name in values]
        logs = []
        for katib_name, name in pairs:
            if name not in values:
                continue
            number = self._number(name, values[name])
            if number is None:
                continue
            if not math.isfinite(number) and self._on_nan != "send":
                self._nonfinite.setdefault(name, number)
                continue
            try:
                logs.append(MetricLog(katib_name, number, timestamp))
            except MetricValueError as error:  # a name that the framework shows and Katib cannot hold
                self._warn_once(name, "Not reported: %s", error)
        return logs

    def _number(self, name: str, value: Any) -> float | None:
        try:
            return to_number(name, value)
        except MetricValueError as error:
            self._warn_once(name, "Not reported: %s", error)
            return None

    def _warn_once(self, key: str, message: str, *arguments: object) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message, *arguments)

    # -- what is missing -------------------------------------------------------------------------------------------

    def _missing(self) -> list[str]:
        wanted = [*(self._selection or {}).values(), *([self._monitor] if self._monitor else [])]
        return [name for name in dict.fromkeys(wanted) if name not in self._rows.latest]

    def _warn_early(self, is_awaited: Callable[[str], bool] | None) -> None:
        """Say of a missing metric while the training can still be corrected for little."""
        missing = self._missing()
        self._has_all = not missing
        if not missing or self._on_missing == "ignore":
            return
        has_validated = any(map(_is_validation_name, self._seen))
        for name in missing:
            if is_awaited is not None and is_awaited(name):
                continue
            if has_validated or not _is_validation_name(name) or self._rows.row_count > _VALIDATION_PATIENCE_ROWS:
                self._warn_once(
                    f"missing {name}", "Metric %r has not appeared so far. %s", name, self._describe_seen(name)
                )

    def _check_missing(self) -> None:
        missing = self._missing()
        if not missing or self._on_missing == "ignore":
            return
        message = " ".join(f"Metric {name!r} never appeared. {self._describe_seen(name)}" for name in missing)
        if self._on_missing == "raise":
            raise ConfigurationError(message)
        logger.warning("%s", message)

    def _describe_seen(self, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  rarely needed

        nearest = get_close_matches(name, self._seen, n=1, cutoff=0.5)
        question = f" Did you mean {nearest[0]!r}?" if nearest else ""
        return f"Seen: {', '.join(sorted(self._seen)) or 'nothing'}.{question}"

    # -- delivery --------------------------------------------------------------------------------------------------

    def _send(self, logs: list[MetricLog]) -> None:
        nonfinite, self._nonfinite = self._nonfinite, {}
        if nonfinite:
            shown = ", ".join(f"{name}={format_value(number)}" for name, number in nonfinite.items())
            if self._on_nan == "raise":
                raise MetricValueError(f"not finite: {shown}")
            logger.warning("Not reported, because Katib cannot compare it: %s", shown)
        if not logs:
            return
        if self._selection is None:
            names = ", ".join(dict.fromkeys(log.name for log in logs))
            self._warn_once(
                "no names",
                "No metrics were named, so all are reported: %s. Name those that the experiment declares: Katib's UI "
                "shows any other in the objective's column.",
                names,
            )
        self.receipt = None
        try:
            # A copy has the options as they were resolved; a second look at the environment, and at the files that it
            # names, could fail, and then there were no reporter to try again or to write the spool.
            with self._live.for_delivery() as reporter:
                aside = {"_aside": self._live.aside} if self._live.aside else {}
                self.receipt = reporter.report_logs(logs, _rank=self._rank, **aside)
        except KatibCallbacksError as error:
            if self._on_error == "raise":
                raise
            logger.warning("%s", error)
        except Exception:
            if self._on_error == "raise":
                raise
            logger.exception("Internal error while reporting metrics.")

    def _reporter_of_environment(self) -> "KatibReporter":
        from katib_callbacks.reporting.reporter import KatibReporter  # noqa: PLC0415  the recorder can be imported without it

        return KatibReporter(_runtime=self._runtime)

    # -- resumed runs ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain dicts, lists and floats; empty where nothing is recorded."""
        return self._rows.state() if self._is_active else {}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Hand the next :meth:`start` what :meth:`state` returned in the run that it resumes; None for a new run."""
        self._restored = dict(state) if state else None


def _pick(  # a Literal cannot be a type variable's value, so the caller's annotation tells the type
    runtime: Runtime, options: object, argument: str, value: Any, default: Any
) -> Any:
    variable = settings.PREFIX + argument.upper()
    return settings.choice(options, argument, value, variable, default, runtime)


def _detached(value: Any) -> Any:
    """Let go of the graph that computed a tensor."""
    try:
        return value.detach() if hasattr(value, "detach") else value
    except Exception:  # noqa: BLE001  no tensor: to_number names it, and the other metrics go their way
        return value


def _is_validation_name(name: str) -> bool:
    return name.startswith(("val", "eval"))
