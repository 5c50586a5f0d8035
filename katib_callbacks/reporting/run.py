"""ReporterRun: one training's use of a reporter, or one report's, from its first progress to its delivery.

A report's rows go in order of time to the first sink, which decides what becomes of it, and to the secondary ones.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError, DeliveryError, ReporterClosedError, retold
from katib_callbacks.metrics import MetricLog, format_value
from katib_callbacks.process_state import in_report, out_of_report
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.destinations import Destinations
from katib_callbacks.reporting.progress import Progress
from katib_callbacks.reporting.ranks import ProcessRank
from katib_callbacks.reporting.receipt import ReportReceipt
from katib_callbacks.reporting.timestamps import put_in_order, start_after
from katib_callbacks.sinks import MetricSink, SinkOutcome, checked_outcome
from katib_callbacks.sinks.auto import KATIB, NO_TRIAL
from katib_callbacks.sinks.registry import ReporterOptions

if TYPE_CHECKING:
    from katib_callbacks.settings.early_stopping import Policy
    from katib_callbacks.sinks.katib.asking import Asker

MAX_ROWS_SHOWN = 5
"""How many rows a message spells out."""

_FOLLOWS = "When this process ends, Katib marks the trial MetricsUnavailable for good if the objective is among them. "

logger = logging.getLogger(__name__)


class ReporterRun:
    """Shows progress and delivers, for ``KatibReporter.open_run``; the sinks that show progress get the rows as well.

    Pickles without anything live: a copy goes on with sinks of its own. Off rank zero nothing is delivered.

    Args:
        late: Names of sinks that are shown the end of this run only.
        is_own: Whether the sinks belong to this run only, so that :meth:`close` closes them.
    """

    def __init__(
        self,
        destinations: Destinations,
        options: ReporterOptions,
        *,
        rank: ProcessRank,
        late: Collection[str],
        is_own: bool,
    ) -> None:
        self._destinations = destinations
        self._options = options
        self._rank = rank
        self._late = frozenset(late)
        self._is_own = is_own
        self.progress: Progress | None = None

    @property
    def is_reporting(self) -> bool:
        """Whether this process reports: it is global rank zero."""
        return self._rank.is_global_zero

    def begin_progress(
        self, fraction: Callable[[], float | None], latest: Callable[[], Mapping[str, float]]
    ) -> Progress | None:
        """Begin to show how far the training is; return None, and call neither function, where no sink shows it."""
        sinks = self._destinations.listeners()
        if sinks:
            progress = Progress(sinks, self._options.runtime.monotonic, late=self._late)
            progress.begin(fraction(), latest())
            self.progress = progress
        return self.progress

    def asker(self, policy: "Policy") -> "Asker | None":
        """Return what asks the run's DB manager whether to stop; None where the run has none, or does not report."""
        endpoint = self._destinations.db_manager() if self.is_reporting else None
        if endpoint is None or self._options.trial_name is None:
            return None
        from katib_callbacks.sinks.katib.asking import Asker  # noqa: PLC0415  only with a policy

        return Asker(endpoint, self._options.trial_name, policy, self._options.runtime)

    def deliver(self, rows: Sequence[MetricLog]) -> ReportReceipt:
        """Deliver rows, blocking up to the reporter's deadline; see ``KatibReporter.report_logs`` for the errors."""
        self._destinations.check_open()
        if not self.is_reporting:
            return self._skipped(str(self._rank))
        if not rows:
            return self._skipped("no rows to report")
        with in_report(lambda: _where(rows, None, can_spool=False)):
            return self._deliver(rows)

    def close(self) -> None:
        """End the run: show no more progress, and close the sinks if they are the run's own. May be called twice."""
        self.progress = None
        if self._is_own:
            self._destinations.close()

    def _deliver(self, rows: Sequence[MetricLog]) -> ReportReceipt:
        options, monotonic = self._options, self._options.runtime.monotonic
        start_s = monotonic()
        opened, idle = self._destinations.open(), self._destinations.idle_outcomes()
        if opened is None:
            return self._refused(idle)
        (name, sink), secondary = opened
        trial_name, address = options.trial_name or "", options.endpoint.address
        latest_left_behind = getattr(sink, "latest_left_behind", None)
        latest = None if latest_left_behind is None else latest_left_behind(trial_name)
        if latest is not None:
            start_after(trial_name, address, latest)
        rows = tuple(put_in_order(trial_name, address, rows))  # all sinks get the same: none may take from another
        sent = {sender.name: sender.send(trial_name, rows, options.timeout_s) for sender in secondary}
        left_s = max(options.timeout_s - (monotonic() - start_s), 0.0)
        try:
            # Another sink than Katib's may report in turn.
            with nullcontext() if latest_left_behind is not None else out_of_report():
                outcome = _send(name, sink, trial_name, rows, left_s)
        except (DeliveryError, ReporterClosedError) as error:
            raise self._explained(error, rows, can_spool=latest_left_behind is not None) from error.__cause__ or error
        termination.withdraw(options.runtime, (termination.DELIVERY, termination.NOTHING_SHOWN))
        outcomes: Mapping[str, SinkOutcome] = {**idle, name: outcome}
        if sent:
            from katib_callbacks.reporting.background import Outcomes  # noqa: PLC0415  only where there are several sinks

            outcomes = Outcomes({**outcomes, **sent})
        elapsed_s = monotonic() - start_s
        if outcome.skipped is None and logger.isEnabledFor(logging.INFO):
            logger.info(
                "Reported %s%s to %s in %.2f s.",
                _spelled_out(rows),
                f" of trial {trial_name!r}" if trial_name else "",
                f"the DB manager at {address}" if name == KATIB else f"the sink {name!r}",
                elapsed_s,
            )
        return ReportReceipt(
            options.trial_name,
            delivered=outcome.delivered,
            spooled=outcome.spooled,
            dropped=0,
            attempts=outcome.attempts,
            verified=outcome.verified,
            elapsed_s=elapsed_s,
            skipped=outcome.skipped,
            sinks=outcomes,
        )

    def _explained(
        self, error: DeliveryError | ReporterClosedError, rows: Sequence[MetricLog], *, can_spool: bool
    ) -> Exception:
        """Return an error that says where the rows are that the first sink does not have; the pod says it too."""
        is_failure = isinstance(error, DeliveryError)
        pending = error.pending_of(len(rows)) if isinstance(error, DeliveryError) else len(rows)
        where = _where(rows[len(rows) - pending :], error.spool_path, can_spool=can_spool)
        termination.explain(self._options.runtime, termination.DELIVERY, f"{error}. {where}")
        told = retold(error, f"{error}. {_FOLLOWS if is_failure and self._options.trial_name else ''}{where}")
        if isinstance(told, DeliveryError):
            told.pending = pending
        return told

    def _refused(self, idle: Mapping[str, SinkOutcome]) -> ReportReceipt:
        """Answer where no sink has anything to do; without a trial name it is an error."""
        where = self._destinations.whereabouts
        if where.nothing is not None and NO_TRIAL in where.nothing:
            advice = f". {where.advice}" if where.advice else ""
            raise ConfigurationError(
                f"there is no trial name: {settings.TRIAL_NAME} is not set, and trial_name was not given{advice}"
            )
        reasons = "; ".join(f"{name}: {outcome.skipped}" for name, outcome in idle.items())
        return self._skipped(reasons or str(where.nothing), idle)

    def _skipped(self, reason: str, sinks: Mapping[str, SinkOutcome] = MappingProxyType({})) -> ReportReceipt:
        return ReportReceipt(
            self._options.trial_name, 0, 0, 0, 0, verified=False, elapsed_s=0.0, skipped=reason, sinks=sinks
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "progress": None}


def _send(name: str, sink: MetricSink, trial_name: str, rows: Sequence[MetricLog], left_s: float) -> SinkOutcome:
    try:
        outcome = checked_outcome(sink.send(trial_name, rows, deadline_s=left_s))
    except (DeliveryError, ReporterClosedError):
        raise
    except Exception as error:
        raise DeliveryError(
            f"the sink {name!r} failed with {type(error).__name__}: {error}", pending=len(rows)
        ) from error
    if outcome.delivered < len(rows) and outcome.skipped is None:
        raise DeliveryError(
            f"the sink {name!r} delivered {outcome.delivered} of {len(rows)} rows: {outcome.error or 'no reason'}",
            attempts=outcome.attempts,
            pending=len(rows) - outcome.delivered,
        )
    return outcome


def _where(rows: Sequence[MetricLog], spool_path: str | None, *, can_spool: bool) -> str:
    """Return where rows are that were not delivered, and what to do."""
    if spool_path is not None:
        from pathlib import PurePath  # noqa: PLC0415  only in an error

        return (
            f"The rows are in {spool_path}; `katib-callbacks replay {PurePath(spool_path).parent}` restores the rows, "
            "not the trial."
        )
    advice = f"; set {settings.SPOOL_DIR} (spool_dir) to keep them" if can_spool else ""
    return f"The rows were not saved{advice}: {_spelled_out(rows)}."


def _spelled_out(rows: Sequence[MetricLog]) -> str:
    """Return the names and values of the first rows, and how many more there are, for a message."""
    shown = ", ".join(f"{row.name}={format_value(row.value)}" for row in rows[:MAX_ROWS_SHOWN])
    return f"{shown} and {len(rows) - MAX_ROWS_SHOWN:,} more" if len(rows) > MAX_ROWS_SHOWN else shown
