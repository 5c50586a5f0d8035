"""ReporterRun: one training's use of a reporter, or one report's, from its first progress to its delivery."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.reporting.delivery import deliver, one_report_a_thread, spelled_out
from katib_callbacks.reporting.destinations import Destinations
from katib_callbacks.reporting.progress import Progress
from katib_callbacks.reporting.receipt import ReportReceipt
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.auto import KATIB, NO_TRIAL
from katib_callbacks.sinks.registry import ReporterOptions

if TYPE_CHECKING:
    from katib_callbacks.metrics import MetricLog
    from katib_callbacks.reporting.ranks import ProcessRank
    from katib_callbacks.settings.early_stopping import Policy
    from katib_callbacks.sinks.katib.asking import Asker

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
        rank: "ProcessRank",
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

    def deliver(self, rows: "Sequence[MetricLog]") -> ReportReceipt:
        """Deliver rows, blocking up to the reporter's deadline; see ``KatibReporter.report_logs`` for the errors."""
        self._destinations.check_open()
        if not self.is_reporting:
            return self._skipped(str(self._rank))
        if not rows:
            return self._skipped("no rows to report")
        with one_report_a_thread(rows):
            return self._deliver(rows)

    def close(self) -> None:
        """End the run: show no more progress, and close the sinks if they are the run's own. May be called twice."""
        self.progress = None
        if self._is_own:
            self._destinations.close()

    def _deliver(self, rows: "Sequence[MetricLog]") -> ReportReceipt:
        options = self._options
        start_s = options.runtime.monotonic()
        opened, idle = self._destinations.open(), self._destinations.idle_outcomes()
        if opened is None:
            where = self._destinations.whereabouts
            if where.nothing is not None and NO_TRIAL in where.nothing:
                advice = f". {where.advice}" if where.advice else ""
                raise ConfigurationError(
                    f"there is no trial name: {settings.TRIAL_NAME} is not set, and trial_name was not given{advice}"
                )
            reasons = "; ".join(f"{name}: {outcome.skipped}" for name, outcome in idle.items())
            return self._skipped(reasons or str(where.nothing), idle)
        first, secondary = opened
        outcome, outcomes = deliver(options, rows, first, secondary, idle)
        elapsed_s = options.runtime.monotonic() - start_s
        if outcome.skipped is None and logger.isEnabledFor(logging.INFO):
            name = first[0]
            logger.info(
                "Reported %s%s to %s in %.2f s.",
                spelled_out(rows),
                f" of trial {options.trial_name!r}" if options.trial_name else "",
                f"the DB manager at {options.endpoint.address}" if name == KATIB else f"the sink {name!r}",
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

    def _skipped(self, reason: str, sinks: Mapping[str, SinkOutcome] = MappingProxyType({})) -> ReportReceipt:
        return ReportReceipt(
            self._options.trial_name, 0, 0, 0, 0, verified=False, elapsed_s=0.0, skipped=reason, sinks=sinks
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "progress": None}
