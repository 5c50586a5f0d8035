"""Katib's table on each database server: made as Katib makes it, or found as Katib left it."""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from servers import SERVERS, STORES

from katib_callbacks import StoreError
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.store import mysql
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.wire.client import DBManagerStub

TIME = "2026-01-31T12:00:00.5Z"
ROW = (TIME, "loss", "1")

# kubeflow/katib v0.19.0, pkg/db/v1beta1/mysql/init.go and postgres/init.go.
KATIBS_TABLE = {
    "mysql": """CREATE TABLE IF NOT EXISTS observation_logs
        (trial_name VARCHAR(255) NOT NULL,
        id INT AUTO_INCREMENT PRIMARY KEY,
        time DATETIME(6),
        metric_name VARCHAR(255) NOT NULL,
        value TEXT NOT NULL)""",
    "postgresql": """CREATE TABLE IF NOT EXISTS observation_logs
        (trial_name VARCHAR(255) NOT NULL,
        id serial PRIMARY KEY,
        time TIMESTAMP(6),
        metric_name VARCHAR(255) NOT NULL,
        value TEXT NOT NULL)""",
}
COLUMNS = (
    "SELECT column_name, {type}, is_nullable, column_default FROM information_schema.columns "
    "WHERE table_name = 'observation_logs' AND table_schema = {schema} ORDER BY ordinal_position"
)
OF_SERVER = {
    "mysql": COLUMNS.format(type="CONCAT(column_type, ' ', extra)", schema="DATABASE()"),
    "postgresql": COLUMNS.format(
        type="CONCAT(data_type, character_maximum_length, datetime_precision)", schema="current_schema()"
    ),
}
INDEXES = {
    "mysql": "SELECT index_name, GROUP_CONCAT(column_name ORDER BY seq_in_index), MAX(non_unique) FROM "
    "information_schema.statistics WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY' GROUP BY index_name",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'observation_logs' "
    "AND indexname NOT LIKE '%_pkey'",
}

pytestmark = pytest.mark.parametrize("store", [store for store in STORES if store != "sqlite"])


@pytest.fixture
def database(store, database_server):
    return database_server(store)


@pytest.fixture
def ask(database):
    def ask(url, statement):
        return database.execute(statement, database=url.rpartition("/")[2])

    return ask


def test_the_table_is_katibs_and_the_index_is_added(database, ask):
    ours, katibs = database.create_database(), database.create_database()
    ask(katibs, KATIBS_TABLE[database.dialect])
    DBManager(ours).start().stop()

    assert len(ask(ours, OF_SERVER[database.dialect])) == 5
    assert ask(ours, OF_SERVER[database.dialect]) == ask(katibs, OF_SERVER[database.dialect])
    ask(ours, KATIBS_TABLE[database.dialect])  # what Katib's manager does when it starts on ours

    assert ask(katibs, INDEXES[database.dialect]) == []
    DBManager(katibs).start().stop()
    (index,) = ask(katibs, INDEXES[database.dialect])
    assert ask(ours, INDEXES[database.dialect]) == [index]
    assert index[0] == "idx_observation_logs_trial_time"
    assert "UNIQUE" not in str(index)
    assert index[2:] in {(), (1,)}
    assert "trial_name" in str(index[1])
    DBManager(katibs).start().stop()
    assert ask(katibs, INDEXES[database.dialect]) == [index]


def test_what_katib_wrote_is_read_and_both_can_go_on(database, ask, open_raw):
    url = database.create_database()
    ask(url, KATIBS_TABLE[database.dialect])
    insert = "INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES "
    ask(
        url,
        insert + "('t', '2026-01-31 12:00:00.5', 'loss', '0.5'), ('t', '0001-01-01 00:00:00', 'loss', 'unavailable')",
    )
    ask(url, insert + "('t', '2026-01-31 12:00:00.5', 'loss', '0.5'), ('t', NULL, 'loss', '1')")  # Katib doubles
    with DBManager(url) as db_manager:
        raw = open_raw(db_manager)
        row = (TIME, "loss", "0.5")
        assert raw.get("t") == [("0001-01-01T00:00:00Z", "loss", "unavailable"), row, row]
        raw.report("t", row)  # sent to Katib's before, and there already
        raw.report("t", ("2026-01-31T12:00:01Z", "loss", "0.25"))
        ask(url, insert + "('t', '2026-01-31 12:00:02', 'loss', '0.125')")
        assert [value for _, _, value in raw.get("t")] == ["unavailable", "0.5", "0.5", "0.25", "0.125"]
    assert len(ask(url, "SELECT * FROM observation_logs")) == 6


def test_a_manager_waits_for_another_one_that_makes_the_index(database, monkeypatch, caplog):
    monkeypatch.setattr(mysql, "LOCK_TIMEOUT_S", 1)
    url = database.create_database()
    if database.dialect == "postgresql":  # which waits without end, unless its administrator has set another limit
        database.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET lock_timeout = '1s'")
    first = ObservationLogStore(url, max_connections=4)
    try:
        with first._database._creator.connect() as connection, ThreadPoolExecutor(1) as threads:
            first._database.lock(connection, ["initialization"], is_patient=True)
            second = threads.submit(lambda: DBManager(url).start().stop())
            try:
                until(lambda: caplog.text.count("waiting for another manager, which makes the table or its index") > 1)
                assert not second.done()
            finally:
                first._database.unlock(connection)
                connection.rollback()  # PostgreSQL's lock ends with the transaction
            second.result(timeout=240)
    finally:
        first.close()


def until(is_true):
    end_s = time.monotonic() + 240
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_with_skip_db_initialization_nothing_is_made(database, ask):
    url = database.create_database()
    with pytest.raises(StoreError, match="observation_logs"):
        DBManager(url, is_initialized=True).start()
    ask(url, KATIBS_TABLE[database.dialect])
    DBManager(url, is_initialized=True).start().stop()
    assert ask(url, INDEXES[database.dialect]) == []


def test_without_a_right_to_make_the_index_it_is_said_and_the_manager_serves(database, ask, open_raw, caplog):
    url = database.create_database()
    ask(url, KATIBS_TABLE[database.dialect])
    name = url.rpartition("/")[2]
    if database.dialect == "mysql":
        database.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'secret'")
        database.execute(f"GRANT SELECT, INSERT, DELETE, CREATE ON {name}.* TO {name}@'127.0.0.1'")
    else:
        database.execute(f"CREATE USER {name} PASSWORD 'secret'", database=name)
        database.execute(f"GRANT SELECT, INSERT, DELETE ON observation_logs TO {name}", database=name)
        database.execute(f"GRANT USAGE ON SEQUENCE observation_logs_id_seq TO {name}", database=name)
        database.execute(f"GRANT CREATE ON SCHEMA public TO {name}", database=name)
        hba = database.folder / "data" / "pg_hba.conf"
        hba.write_text(hba.read_text() + f"host all {name} 127.0.0.1/32 scram-sha-256\n")
        database.execute("SELECT pg_reload_conf()")
    port = url.partition("@127.0.0.1:")[2]
    limited = f"{url.partition(':')[0]}://{name}:secret@127.0.0.1:{port}"
    with caplog.at_level(logging.WARNING), DBManager(limited, connect_timeout_s=60) as db_manager:
        assert "no idx_observation_logs_trial_time, so every call reads the whole table" in caplog.text
        raw = open_raw(db_manager)
        raw.report("t", ROW)
        assert raw.get("t") == [ROW]


def test_a_character_that_the_table_has_not_is_refused_and_other_calls_are_not(database, open_raw):
    options = {"mysql": "CHARACTER SET latin1", "postgresql": "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"}
    url = database.create_database(options[database.dialect])
    if database.dialect == "mysql":
        database.execute(KATIBS_TABLE["mysql"], database=url.rpartition("/")[2])
    with DBManager(url) as db_manager, ThreadPoolExecutor(16) as threads:
        raw = open_raw(db_manager)

        def report(number):
            raw.report(f"t{number}", (TIME, "损失" if number % 4 == 0 else "löss", "1"))

        calls = [threads.submit(report, number) for number in range(40)]
        for number, call in enumerate(calls):
            if number % 4:
                call.result(timeout=60)
                assert raw.get(f"t{number}") == [(TIME, "löss", "1")]
            else:
                assert call.exception(timeout=60).code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "refuses what was sent" in call.exception().details()
                assert raw.get(f"t{number}") == []


def test_a_name_of_another_case_or_accent_is_not_deleted_with_it(database, open_raw, open_channel):
    with DBManager(database.create_database()) as db_manager:
        raw = open_raw(db_manager)
        stub = DBManagerStub(open_channel(db_manager.address))
        names = ["trial", "Trial", "triäl", "trial "]
        for name in names:
            raw.report(name, ROW)
        stub.delete("trial", timeout_s=60)
        assert [len(raw.get(name)) for name in names] == [0, 1, 1, 1]


def test_every_session_commits_to_the_disk_and_its_waiting_is_bounded(database):
    store = ObservationLogStore(database.create_database(), max_connections=4)
    try:
        for transaction in (store._database.writing, store._database.reading, store._database.checking):
            with transaction() as connection:
                if database.dialect == "mysql":
                    assert connection.exec_driver_sql("SELECT @@autocommit").scalar() == 0
                    # tx_isolation, or transaction_isolation
                    levels = connection.exec_driver_sql(
                        "SHOW SESSION VARIABLES WHERE variable_name RLIKE '^t.*_isolation$'"
                    )
                    assert {level for _, level in levels} == {"READ-COMMITTED"}
                    assert "STRICT_ALL_TABLES" in connection.exec_driver_sql("SELECT @@sql_mode").scalar()
                    assert connection.exec_driver_sql("SELECT @@lock_wait_timeout").scalar() == 10
                else:
                    assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
                    assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"
                    assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
    finally:
        store.close()


def test_a_server_that_may_lose_what_it_acknowledged_is_warned_of(database, caplog):
    url = database.create_database()
    if database.dialect == "postgresql":
        database.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
        store = ObservationLogStore(url, max_connections=4)
        with store._database.writing() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        store.close()
        return
    database.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        with caplog.at_level(logging.WARNING):
            DBManager(url).start().stop()
    finally:
        database.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    assert "innodb_flush_log_at_trx_commit is 2: a crash may lose acknowledged rows" in caplog.text


def test_without_its_driver_the_extra_is_named(store):
    driver, url, extra = {
        "mysql": ("pymysql", "mysql://u:p@h/katib", "mysql"),
        "postgresql": ("psycopg", "postgresql://u:p@h/katib", "postgres"),
    }[SERVERS[store].dialect]
    program = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        f"from katib_callbacks.db_manager import DBManager; DBManager({url!r}).start()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("katib_callbacks.errors.MissingDependencyError: ")
    assert f'pip install "katib-callbacks[db-manager,{extra}]"' in last_line
