"""One line of time per trial and DB manager: a process's timestamps strictly increase, whichever reporter sends rows.

Katib keeps microseconds, returns rows in order of time only, and takes the greatest timestamp for the latest value;
and a row's name and timestamp are what tells whether it is stored.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from katib_callbacks.errors import MetricValueError
from katib_callbacks.metrics import RESOLUTION, MetricLog
from katib_callbacks.process_state import locked, trial_state

logger = logging.getLogger(__name__)

LARGE_MOVE = timedelta(seconds=1)
"""A row that has to be moved further than this is worth a warning: a clock was set back, or rows come out of order."""


def put_in_order(trial_name: str, address: str, logs: Iterable[MetricLog]) -> list[MetricLog]:
    """Return the rows in order of time, each at least 1 us after the one before. Thread-safe.

    A row keeps its timestamp if that is later than every row which this process has reported for the trial to the DB
    manager at that address; otherwise it goes 1 us after the latest one. Rows of equal time keep their order.
    """
    rows = sorted(logs, key=lambda log: log.timestamp)
    largest_move = timedelta()
    with locked():
        latest = trial_state(trial_name).latest
        last = latest.get(address)
        for index, log in enumerate(rows):
            if last is not None and log.timestamp <= last:
                try:
                    moved = MetricLog(log.name, log.value, last + RESOLUTION)
                except OverflowError as error:
                    raise MetricValueError(f"metric {log.name!r}: no timestamp is later than {last}") from error
                largest_move = max(largest_move, moved.timestamp - log.timestamp)
                rows[index] = log = moved  # noqa: PLW2901  the row as it is sent
            last = log.timestamp
        if last is not None:
            latest[address] = last
    if largest_move >= LARGE_MOVE:
        logger.warning(
            "Timestamps of trial %r were moved by up to %s: later ones were reported before.", trial_name, largest_move
        )
    return rows


def start_after(trial_name: str, address: str, timestamp: datetime) -> None:
    """Let every row of the trial that is still to come be later than ``timestamp``."""
    with locked():
        latest = trial_state(trial_name).latest
        latest[address] = max(timestamp, latest.get(address, timestamp))
