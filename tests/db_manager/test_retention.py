"""Rows of old trials, which a DB manager deletes where it is asked to."""

import logging
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from katib_callbacks import ConfigurationError
from katib_callbacks.db_manager import DBManager, retention
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore

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


def test_a_trial_is_old_when_its_newest_row_is_older_than_the_bound(db):
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    later = noon + timedelta(microseconds=1)
    with closing(ObservationLogStore(f"sqlite:///{db}", max_connections=1)) as store:
        store.insert("t", [("2026-01-31 12:00:00.000000", "loss", "1")] * 2)
        store.insert("newer", [("2026-01-31 13:00:00.000000", "loss", "1")])
        assert (store.trials_before(noon), store.delete("t", before=noon)) == ([], 0)
        assert (store.trials_before(later), store.delete("t", before=later)) == (["t"], 2)
        assert store.trials_before(later + timedelta(hours=2)) == ["newer"]


def test_a_deletion_that_fails_is_said_and_tried_again(db, open_raw, caplog, monkeypatch):
    monkeypatch.setattr(retention, "INTERVAL_S", 0.02)

    def rename(name, new_name):
        with closing(sqlite3.connect(db)) as connection:
            connection.execute(f"ALTER TABLE {name} RENAME TO {new_name}")

    with DBManager(f"sqlite:///{db}", retention_days=30) as server:
        raw, end_s = open_raw(server), time.monotonic() + TIMEOUT_S
        raw.report("new", (at(0), "loss", "1"))
        rename("observation_logs", "hidden")
        while "old trials were not deleted" not in caplog.text:
            assert time.monotonic() < end_s
            time.sleep(0.02)
        assert "cannot read the database: no such table: observation_logs" in caplog.text
        rename("hidden", "observation_logs")
        raw.report("old", (at(40), "loss", "1"))
        while raw.get("old"):
            assert time.monotonic() < end_s
            time.sleep(0.02)
        assert len(raw.get("new")) == 1


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_days_that_cannot_be_right_are_refused(days, db):
    with pytest.raises(ConfigurationError, match="retention_days must be a positive number of days"):
        DBManager(f"sqlite:///{db}", retention_days=days)
