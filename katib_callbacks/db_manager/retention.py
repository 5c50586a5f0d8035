"""The rows of trials that were over long ago, deleted by a thread of its own, where that is asked for."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone

from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.errors import ConfigurationError, StoreError

INTERVAL_S = 3_600.0
"""How often they are looked for: that reads the whole index."""

_CLOSE_TIMEOUT_S = 5.0  # one trial's rows may take longer; the thread ends after them

_logger = logging.getLogger(__name__)


class Retention:
    """Deletes each trial whose newest row is older than some days. Has one thread, until it is closed.

    ``last_asked`` tells when trials last asked about early stopping: of those that ask nothing is deleted, and those
    that asked and never reported are as old as their last question.
    """

    def __init__(self, store: ObservationLogStore, days: float, last_asked: Callable[[], Mapping[str, float]]) -> None:
        self._store = store
        self._days = days
        self._last_asked = last_asked
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="katib-callbacks-retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._is_closed.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._delete_old_trials()
            except StoreError as error:
                _logger.warning("old trials were not deleted; the next try is in an hour: %s", str(error))
            except Exception:
                _logger.exception("old trials were not deleted, in a way that was not foreseen")
            self._is_closed.wait(INTERVAL_S)

    def _delete_old_trials(self) -> None:
        end = datetime.now(timezone.utc) - timedelta(days=self._days)
        asked_s, end_s = self._last_asked(), end.timestamp()
        old = {name for name, time_s in asked_s.items() if time_s < end_s}
        old.update(name for name in self._store.trials_before(end) if name not in asked_s)
        for trial_name in sorted(old):
            if self._is_closed.is_set():
                return
            if self._store.delete(trial_name, before=end):
                _logger.info("deleted trial %r: its newest row is older than %g days", trial_name, self._days)


def check_days(days: float | None) -> None:
    """Find out whether rows may be kept for so long."""
    if days is not None and not 0 < days <= timedelta.max.days / 1_000:
        raise ConfigurationError(f"retention_days must be a positive number of days, not {days!r}")
