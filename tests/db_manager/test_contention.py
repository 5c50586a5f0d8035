"""Trials that another manager on the same database is writing, and connections that die: an SQLite file which has both.

What servers do themselves is in test_outages.py and test_schema.py.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy.exc import OperationalError

from katib_callbacks import StoreError
from katib_callbacks.db_manager.store import observation_log
from katib_callbacks.db_manager.store.errors import BusyError, ForeignTrialError
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.db_manager.store.sqlite import SQLiteDatabase

LOG = ("2026-01-31 12:00:00.000000", "loss", "1")


class SharedDatabase(SQLiteDatabase):
    """Behaves as a server: trials are ``held`` by another manager, and those who are patient wait until it is done."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.held = set()
        self.is_waited_for, self.is_done = threading.Event(), threading.Event()
        self.is_done.set()
        self.deaths = []

    def hold(self, *names):
        self.held.update(names)
        self.is_done.clear()

    def let_go(self):
        self.held.clear()
        self.is_done.set()

    def writing(self, *, is_patient=False):
        if is_patient:  # on a connection of its own
            self.is_waited_for.set()
            assert self.is_done.wait(60)
        return super().writing()

    def lock(self, connection, trial_names, *, is_patient):
        busy = self.held.intersection(trial_names)
        if busy and is_patient:
            raise BusyError("a trial was not let go in time")
        return frozenset(busy)

    def insert(self, connection, additions):
        super().insert(connection, additions)
        if self.deaths:
            raise OperationalError("INSERT", {}, Exception(self.deaths.pop()))

    def is_worth_another_try(self, error):
        return "gone away" in str(error.orig)


@pytest.fixture
def store(db, monkeypatch):
    monkeypatch.setitem(observation_log._DATABASES, "sqlite", SharedDatabase)
    with closing(ObservationLogStore(f"sqlite:///{db}", max_connections=3, keeps_namespaces=True)) as store:
        yield store


@pytest.fixture
def database(store):
    return store._database


class Rows(list):
    add = list.extend


def rows(store, trial_name):
    return [tuple(row) for row in store.read(trial_name, Rows)]


def test_rows_of_a_trial_that_another_manager_writes_wait_in_nobodys_way(store, database):
    database.hold("t")
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(store.insert, "t", [LOG])
        assert database.is_waited_for.wait(60)
        threads.submit(store.insert, "u", [LOG]).result(60)
        assert (len(rows(store, "t")), len(rows(store, "u"))) == (0, 1)
        database.let_go()
        waiting.result(60)
    store.insert("t", [LOG])  # comes again, and is stored once
    assert len(rows(store, "t")) == 1


def test_a_trial_that_another_namespace_took_meanwhile_is_refused(store, database):
    store.insert("t", [LOG], namespace="team-b")
    database.hold("t")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(store.insert, "t", [("2026-01-31 12:00:01.000000", "loss", "2")], namespace="team-a")
        assert database.is_waited_for.wait(60)
        database.let_go()
        with pytest.raises(ForeignTrialError):
            waiting.result(60)
    assert len(rows(store, "t")) == 1


def test_a_trial_that_another_manager_writes_is_deleted_behind_it(store, database):
    store.insert("t", [LOG])
    database.hold("t")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(store.delete, "t")
        assert database.is_waited_for.wait(60)
        database.let_go()
        assert waiting.result(60) == 1
    assert rows(store, "t") == []


def test_a_trial_that_another_manager_does_not_let_go_is_not_deleted(store, database):
    store.insert("t", [LOG])
    database.held.add("t")
    with pytest.raises(BusyError, match="not let go in time"):
        store.delete("t")
    assert len(rows(store, "t")) == 1


@pytest.mark.parametrize(
    ("deaths", "message"),
    [(["gone away"], None), (["gone away"] * 2, "gone away"), (["no", "not reached"], "database: no$")],
)
def test_what_a_dead_connection_cost_is_done_again_once(store, database, deaths, message):
    database.deaths = deaths[::-1]
    if message is None:
        store.insert("t", [LOG])
    else:
        with pytest.raises(StoreError, match=message):
            store.insert("t", [LOG])
    assert len(rows(store, "t")) == (message is None)
