"""Databases and addresses that cannot be had, a database that goes away, and errors that nobody foresaw."""

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent import futures
from contextlib import closing

import grpc
import pytest

from katib_callbacks import ConfigurationError, StoreError
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.health import Health, HealthMonitor
from katib_callbacks.db_manager.service.katib_service import KatibService
from katib_callbacks.db_manager.service.limits import call_places
from katib_callbacks.db_manager.service.replies import LargeReplies, ReplyWriter
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.stopping.judge import Judge
from katib_callbacks.db_manager.store import sqlite
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub


class BrokenStore:
    """Fails in a way that the server was not written for."""

    def __init__(self):
        self.also_deleted = []

    def __getattr__(self, name):
        def fail(*_args, **_kwargs):
            raise RuntimeError("the disk is on fire")

        return fail


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("katib.db", "'katib.db' is not a database URL such as sqlite:///katib.db"),
        ("", "'' is not a database URL"),
        ("nosql://host/katib", "nosql://host/katib: the DB manager does not know 'nosql' databases; known: sqlite"),
        ("sqlite://", "in-memory database would lose every row"),
        ("sqlite:///", "in-memory database would lose every row"),
        ("sqlite:///:memory:", "in-memory database would lose every row"),
        ("sqlite:///file:katib?mode=memory&uri=true", "named by a plain path alone"),
        ("sqlite:///file:katib.db", "named by a plain path alone"),
        ("sqlite:///katib.db?timeout=0", "named by a plain path alone"),
        ("sqlite://host/katib.db", "named by a plain path alone"),
        ("sqlite+aiosqlite:///katib.db", "driver 'sqlite+aiosqlite' is not known"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        DBManager(url).start()
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_driver_may_be_named(db):
    DBManager(f"sqlite+pysqlite:///{db}").start().stop()
    assert db.exists()


@pytest.mark.parametrize(
    "url",
    [
        "nosql://user:hunter2@host/katib",
        "nosql://user@host/katib?password=hunter2",
        "nosql:/user:hunter2@host",
        "user:hunter2@host/katib",
        "nosql://user:hunter2@host:port/katib",
        "sqlite://user:hunter2@host/katib.db",
        "mysql://user:a@hunter2@host/katib",
        "postgresql://user:hunter2@hunter2@host:5432/katib",
    ],
)
def test_no_message_shows_a_password(url):
    with pytest.raises(ConfigurationError) as caught:
        DBManager(url).start()
    error = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__
    assert "host" in str(caught.value)


def test_a_password_with_an_at_sign_is_said_to_need_another_writing():
    with pytest.raises(ConfigurationError, match=r"^'\*\*\*@host': the user or the password has an @; write it as %40"):
        DBManager("mysql://user:a@b@host/katib").start()


def test_a_new_file_is_for_its_owner_alone(db):
    old_mask = os.umask(0o022)
    try:
        with DBManager(f"sqlite:///{db}"):
            modes = {path.name: path.stat().st_mode & 0o777 for path in db.parent.glob("katib.db*")}
    finally:
        os.umask(old_mask)
    assert modes == dict.fromkeys(["katib.db", "katib.db-wal", "katib.db-shm"], 0o600)


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_write_ahead_log_that_goes_is_noticed_and_said(server, stub, raw, db, make_logs, change):
    stub.report("t", make_logs(1), timeout_s=60)
    wal = db.with_name("katib.db-wal")
    wal.rename(db.with_name("away"))
    if change == "replaced":
        wal.write_bytes(b"")
    assert raw.status() == messages.NOT_SERVING
    with pytest.raises(grpc.RpcError, match=r"'katib\.db-wal' was removed or replaced while") as caught:
        stub.report("t", make_logs(2), timeout_s=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.fixture(params=[4_096, 65_536])
def page_bytes(request, db):
    with closing(sqlite3.connect(db)) as connection:
        connection.execute(f"PRAGMA page_size={request.param}")
        connection.execute("VACUUM")


@pytest.mark.usefixtures("page_bytes")
def test_a_file_that_is_cut_is_noticed_and_said(server, stub, raw, db, make_logs):
    stub.report("t", make_logs(*range(20_000)), timeout_s=60)
    with closing(sqlite3.connect(db)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert raw.status() == messages.SERVING
    os.truncate(db, db.stat().st_size // 2)
    assert raw.status() == messages.NOT_SERVING
    with pytest.raises(grpc.RpcError, match="the file was cut while the DB manager was running") as caught:
        stub.report("t", make_logs(2), timeout_s=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_file_that_another_program_made_smaller_goes_on(server, stub, raw, db, make_logs):
    stub.report("t", make_logs(*range(20_000)), timeout_s=60)
    stub.delete("t", timeout_s=60)
    with closing(sqlite3.connect(db)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = db.stat().st_size
        raw.status()
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert db.stat().st_size < before
    stub.report("t", make_logs(2), timeout_s=60)
    assert raw.status() == messages.SERVING


def test_a_file_that_is_no_database_is_named_and_left_alone(db):
    db.write_text("epoch,loss\n" * 1_000)
    with pytest.raises(StoreError, match=r"katib\.db: cannot open the database: file is not a database"):
        DBManager(f"sqlite:///{db}").start()
    assert db.read_text() == "epoch,loss\n" * 1_000


def test_a_database_with_another_table_of_that_name_is_refused(db):
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("CREATE TABLE observation_logs (trial_name TEXT, time TEXT, note TEXT)")
    with pytest.raises(StoreError, match=r"katib\.db: cannot read the database: no such column"):
        DBManager(f"sqlite:///{db}").start()


def test_a_folder_is_no_database(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 3_600.0)  # there is nothing to wait for
    with pytest.raises(StoreError, match="cannot open the database: unable to open database file"):
        DBManager(f"sqlite:///{tmp_path}").start()


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreError, match="missing' does not exist"):
        DBManager(f"sqlite:///{tmp_path}/missing/katib.db").start()
    assert list(tmp_path.iterdir()) == []


def test_where_sqlite_cannot_log_ahead_it_is_not_used():
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(StoreError, match=r"\(journal mode 'memory'\)"),
    ):
        sqlite._configure(connection, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder that not even root can write to")
def test_a_folder_that_cannot_be_written_to_is_named():
    with pytest.raises(StoreError, match=r"sqlite:////proc/katib\.db: cannot open the database"):
        DBManager("sqlite:////proc/katib.db").start()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1", "'127.0.0.1' is not an address to listen on; write host:port"),
        (":6789", "not an address to listen on"),
        ("::1:0", "not an address to listen on"),
        ("127.0.0.1:port", "not an address to listen on"),
        ("127.0.0.1:65536", "not an address to listen on"),
        ("unix:/tmp/socket", "not an address to listen on"),
        ("no-such-host.invalid:0", "cannot listen on no-such-host.invalid:0: unknown host 'no-such-host.invalid'"),
        (f"{'x' * 64}:0", "unknown host"),
        ("203.0.113.1:0", "cannot listen on 203.0.113.1:0: "),
    ],
)
def test_an_address_that_cannot_be_had_is_named_and_no_file_is_made(db, address, message):
    with pytest.raises(ConfigurationError) as caught:
        DBManager(f"sqlite:///{db}", address).start()
    assert message in str(caught.value)
    assert not db.exists()


def test_a_port_in_use_is_an_error_and_not_shared(server, stub, tmp_path, make_logs):
    with pytest.raises(ConfigurationError, match=f"cannot listen on {server.address}: .*in use"):
        DBManager(f"sqlite:///{tmp_path}/second.db", server.address).start()
    assert not (tmp_path / "second.db").exists()
    stub.report("t", make_logs(1), timeout_s=60)
    assert len(stub.get("t", timeout_s=60)) == 1


def test_an_ipv6_address_is_written_in_brackets(db, open_channel):
    try:
        server = DBManager(f"sqlite:///{db}", "[::1]:0").start()
    except ConfigurationError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        assert server.address.startswith("[::1]:")
        channel = open_channel(server.address)
        grpc.channel_ready_future(channel).result(timeout=60)


def test_the_parts_of_localhost_share_a_port(db):
    with DBManager(f"sqlite:///{db}", "localhost:0") as server:
        host, _, port = server.address.rpartition(":")
        assert host == "localhost"
        assert int(port) > 0


def test_health_and_calls_follow_the_database(raw, stub, db, make_logs):
    stub.report("t", make_logs(1), timeout_s=60)
    elsewhere = db.with_name("moved.db")
    db.rename(elsewhere)

    assert raw.status() == messages.NOT_SERVING
    assert raw.status(methods.DB_MANAGER_SERVICE) == messages.NOT_SERVING
    for call in (
        lambda: stub.report("t", make_logs(2), timeout_s=60),
        lambda: stub.get("t", timeout_s=60),
        lambda: stub.delete("t", timeout_s=60),
    ):
        with pytest.raises(grpc.RpcError, match="was removed or replaced") as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not db.exists()

    elsewhere.rename(db)
    assert raw.status() == messages.SERVING
    assert [log.value for log in stub.get("t", timeout_s=60)] == ["1"]


def test_a_damaged_table_is_unavailable_and_the_server_lives_on(raw, stub, db, make_logs):
    stub.report("t", make_logs(1), timeout_s=60)
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("ALTER TABLE observation_logs RENAME TO hidden")
    assert raw.status() == messages.NOT_SERVING
    for call, action in (
        (lambda: stub.report("t", make_logs(2), timeout_s=60), "write to"),
        (lambda: stub.get("t", timeout_s=60), "read"),
        (lambda: stub.delete("t", timeout_s=60), "write to"),
    ):
        with pytest.raises(grpc.RpcError, match=f"cannot {action} the database: no such table") as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("ALTER TABLE hidden RENAME TO observation_logs")
    assert [log.value for log in stub.get("t", timeout_s=60)] == ["1"]


def test_a_cell_that_another_program_wrote_and_no_one_can_read_is_unavailable(stub, db, make_logs):
    stub.report("t", make_logs(1), timeout_s=60)
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE observation_logs SET time = 'soon'")
        connection.commit()
    with pytest.raises(grpc.RpcError) as caught:
        stub.get("t", timeout_s=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_row_without_a_time_is_not_shown(stub, db, make_logs):
    stub.report("t", make_logs(1, 2), timeout_s=60)
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE observation_logs SET time = NULL WHERE value = '1'")
        connection.commit()
    assert [log.value for log in stub.get("t", timeout_s=60)] == ["2"]


def test_a_write_waits_for_another_process_that_writes(stub, db, make_logs):
    with closing(sqlite3.connect(db, isolation_level=None)) as other, futures.ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO observation_logs (trial_name, metric_name, value) VALUES ('other', 'loss', '1')")
        write = threads.submit(stub.report, "t", make_logs(1), timeout_s=60)
        with pytest.raises(futures.TimeoutError):
            write.result(timeout=0.3)
        assert stub.get("t", timeout_s=60) == []  # readers do not wait
        other.execute("COMMIT")
        write.result(timeout=60)
    assert [log.value for log in stub.get("t", timeout_s=60)] == ["1"]


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(server, stub, db, make_logs):
    stub.report("t", make_logs(1), timeout_s=60)
    engine = server._running.store._database.engine
    with engine.connect() as connection:  # the limit holds for this connection alone, the one that is used next
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(grpc.RpcError, match="full") as caught:
        stub.report("t", make_logs(*range(1_000)), timeout_s=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert [log.value for log in stub.get("t", timeout_s=60)] == ["1"]
    stub.report("t", make_logs(*range(1_000)), timeout_s=60)
    assert len(stub.get("t", timeout_s=60)) == 1_001


@pytest.mark.logs_error("not foreseen")
def test_an_error_that_nobody_foresaw_is_internal_logged_and_survived(open_channel, make_logs, caplog):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    store = BrokenStore()
    monitor = HealthMonitor(store.check)
    servicer, health = Servicer(store, call_places(2), ServerMetrics(), LargeReplies(), Judge(store)), Health(monitor)
    arrivals = Arrivals()
    server.add_generic_rpc_handlers((KatibService(servicer, health, arrivals),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        stub = DBManagerStub(open_channel(f"127.0.0.1:{port}"))
        for call in (
            lambda: stub.report("t", make_logs(1), timeout_s=60),
            lambda: stub.get("t", timeout_s=60),
            lambda: stub.delete("t", timeout_s=60),
            lambda: stub.is_serving(timeout_s=60),
        ):
            with pytest.raises(grpc.RpcError, match="RuntimeError") as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "on fire" not in caught.value.details()
    finally:
        server.stop(None).wait()
        monitor.close()
        arrivals.close()
    assert caplog.text.count("RuntimeError: the disk is on fire") == 4  # with its traceback


def test_a_start_waits_for_another_process_that_sets_up_the_same_file(db):
    server = DBManager(f"sqlite:///{db}")
    with closing(sqlite3.connect(db, isolation_level=None)) as other, futures.ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN IMMEDIATE")  # in a file without a write-ahead log, where SQLite fails at once
        start = threads.submit(server.start)
        with pytest.raises(futures.TimeoutError):
            start.result(timeout=0.3)
        other.execute("COMMIT")
        start.result(timeout=60).stop()


def test_several_managers_may_start_on_one_new_file_at_once(tmp_path):
    for attempt in range(5):
        start, url = threading.Barrier(4), f"sqlite:///{tmp_path}/{attempt}.db"

        def open_and_write(number, start=start, url=url):
            start.wait()
            with closing(ObservationLogStore(url, max_connections=1)) as store:
                store.insert("t", [("2026-01-31 12:00:00.000000", f"m{number}", "1")])

        with futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(open_and_write, range(4)))
        with closing(ObservationLogStore(url, max_connections=1)) as store:
            reply = messages.GetObservationLogReply.FromString(
                store.read("t", lambda: ReplyWriter(lambda: None)).finish()
            )
        assert sorted(log.metric.name for log in reply.observation_log.metric_logs) == ["m0", "m1", "m2", "m3"]


def test_a_table_that_another_program_made_gets_the_index(db):
    with closing(sqlite3.connect(db)) as connection:
        connection.execute(
            "CREATE TABLE observation_logs (trial_name VARCHAR(255) NOT NULL, id INTEGER PRIMARY KEY, "
            "time DATETIME(6), metric_name VARCHAR(255) NOT NULL, value TEXT NOT NULL)"
        )
    DBManager(f"sqlite:///{db}").start().stop()
    with closing(sqlite3.connect(db)) as connection:
        indexes = [name for _, name, *_ in connection.execute("PRAGMA index_list(observation_logs)")]
    assert indexes == ["idx_observation_logs_trial_time"]


@pytest.mark.parametrize("module", ["katib_callbacks.db_manager", "katib_callbacks.db_manager.store.observation_log"])
@pytest.mark.parametrize("installed", ["None", "type('', (), {'__version__': '1.4.54'})()"], ids=["missing", "old"])
def test_without_sqlalchemy_2_the_extra_is_named(module, installed):
    program = f"import sys; sys.modules['sqlalchemy'] = {installed}; import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("katib_callbacks.errors.MissingDependencyError: ")
    assert 'pip install "katib-callbacks[db-manager]"' in last_line
