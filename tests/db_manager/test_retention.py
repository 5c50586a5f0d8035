"""Rows of old trials, which a DB manager deletes where it is asked to."""

import logging
import time
from datetime import datetime, timedelta, timezone

import pytest

from katib_callbacks import ConfigurationError
from katib_callbacks.db_manager import DBManager

TIMEOUT_S = 60


def at(days_ago):
    return (datetime.now(timezone.utc) - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_trials_whose_newest_row_is_old_are_deleted_and_no_others(database_url, open_raw, caplog):
    caplog.set_level(logging.INFO)
    with DBManager(database_url) as server:
        raw = open_raw(server)
        raw.report("old", (at(40), "loss", "1"), (at(31), "loss", "2"))
        raw.report("under way", (at(40), "loss", "1"), (at(29), "loss", "2"))
        raw.report("new", (at(0), "loss", "1"))
    with DBManager(database_url, retention_days=30) as server:
        raw, end_s = open_raw(server), time.monotonic() + TIMEOUT_S
        while raw.get("old"):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert [len(raw.get(name)) for name in ("under way", "new")] == [2, 1]
    assert "deleted trial 'old': its newest row is older than 30 days" in caplog.text
    with DBManager(database_url) as server:
        assert [len(open_raw(server).get(name)) for name in ("old", "under way", "new")] == [0, 2, 1]


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_days_that_cannot_be_right_are_refused(days, db):
    with pytest.raises(ConfigurationError, match="retention_days must be a positive number of days"):
        DBManager(f"sqlite:///{db}", retention_days=days)
