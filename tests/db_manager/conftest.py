"""A DB manager of each test's own, in this process or in one that can be killed, and clients that know no manners."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from servers import SERVERS, STORES, DatabaseServer
from trials import Trials, hashed, new_token

from katib_callbacks.db_manager import DBManager
from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
TIMEOUT_S = 60.0

_OF_SERVERS = ["test_outages.py", "test_platform_page.py", "test_schema.py", "test_whole_path.py"]
collect_ignore = _OF_SERVERS if STORES == ["sqlite"] else []
"""What is about database servers alone."""

WITHOUT_SERVERS = {
    f"test_{name}.py"
    for name in (
        *("configuration", "contention", "faults", "group_commit", "lifecycle", "overload", "service_account_calls"),
        *("service_accounts", "token_file", "trial_attacks", "trial_listener", "trial_rotation"),
    )
}
"""Modules most of whose tests ask for no database server, and for nothing else that `databases` alone installs."""

_REPLIES = {
    methods.REPORT_OBSERVATION_LOG: messages.ReportObservationLogReply,
    methods.GET_OBSERVATION_LOG: messages.GetObservationLogReply,
    methods.DELETE_OBSERVATION_LOG: messages.DeleteObservationLogReply,
    methods.HEALTH_CHECK: messages.HealthCheckResponse,
}


class RawClient:
    """Sends what no stub of ours would."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def send(self, path: str, request: Any) -> Any:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        call = self._channel.unary_unary(path, response_deserializer=_REPLIES[path].FromString)
        return call(data, timeout=TIMEOUT_S)

    def report(self, trial_name: str, *rows: tuple[str, str, str]) -> None:
        logs = [
            messages.MetricLog(time_stamp=time, metric=messages.Metric(name=name, value=value))
            for time, name, value in rows
        ]
        self.send(
            methods.REPORT_OBSERVATION_LOG,
            messages.ReportObservationLogRequest(
                trial_name=trial_name, observation_log=messages.ObservationLog(metric_logs=logs)
            ),
        )

    def get(self, trial_name: str, **filters: str) -> list[tuple[str, str, str]]:
        reply = self.send(
            methods.GET_OBSERVATION_LOG, messages.GetObservationLogRequest(trial_name=trial_name, **filters)
        )
        return [(log.time_stamp, log.metric.name, log.metric.value) for log in reply.observation_log.metric_logs]

    def status(self, service: str = "") -> int:
        status: int = self.send(methods.HEALTH_CHECK, messages.HealthCheckRequest(service=service)).status
        return status


class ServerProcess:
    """``katib-callbacks db-manager`` in a process of its own."""

    def __init__(self, db: Path, address: str = "127.0.0.1:0") -> None:
        self.db = db
        command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager"]
        self.process = subprocess.Popen(
            [*command, "--listen", address, "--db", f"sqlite:///{db}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        match = re.search(r"listening on (\S+),", self.first_line)
        assert match, self.process.communicate()
        self.address = match[1]

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out, err


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "katib.db"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a DB manager on every store, and what looks into SQLite's file (``db``) on SQLite alone."""
    if "database_url" in metafunc.fixturenames:
        stores = ["sqlite"] if "db" in metafunc.fixturenames else STORES
        metafunc.parametrize("database_url", stores, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where servers are named, leave out what asks for none of them: other sessions run it, on SQLite or without."""
    if STORES == ["sqlite"]:
        return
    servers, here = set(STORES), Path(__file__).parent
    left_out = [item for item in items if item.path.parent == here and _runs_elsewhere(item, servers)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _runs_elsewhere(item: pytest.Item, servers: set[str]) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return item.path.name in WITHOUT_SERVERS and not servers & {value for value in parameters if isinstance(value, str)}


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[str, DatabaseServer]]:
    """Those that all tests share, each started when it is first asked for; whoever kills one starts it again."""
    servers: dict[str, DatabaseServer] = {}
    yield servers
    for server in servers.values():
        server.remove()


@pytest.fixture
def database_server(running_servers: dict[str, DatabaseServer]) -> Iterator[Callable[[str], DatabaseServer]]:
    """Return a server by its name; the databases that the test makes in it are dropped."""

    def get(name: str) -> DatabaseServer:
        if name not in running_servers:
            running_servers[name] = SERVERS[name]().__enter__()
        return running_servers[name]

    yield get
    for server in running_servers.values():
        server.drop_databases()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """A new database of one store."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('db')}"
    return request.getfixturevalue("database_server")(request.param).create_database()


@pytest.fixture
def server(database_url: str) -> Iterator[DBManager]:
    with DBManager(database_url) as server:
        yield server


@pytest.fixture
def open_channel() -> Iterator[Callable[[str], grpc.Channel]]:
    with ExitStack() as channels:
        yield lambda address: channels.enter_context(
            grpc.insecure_channel(
                address, options=(("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
            )
        )


@pytest.fixture
def stub(server: DBManager, open_channel: Callable[[str], grpc.Channel]) -> DBManagerStub:
    return DBManagerStub(open_channel(server.address))


@pytest.fixture
def raw(server: DBManager, open_channel: Callable[[str], grpc.Channel]) -> RawClient:
    return RawClient(open_channel(server.address))


@pytest.fixture
def open_raw(open_channel: Callable[[str], grpc.Channel]) -> Callable[[DBManager], RawClient]:
    return lambda db_manager: RawClient(open_channel(db_manager.address))


@pytest.fixture
def stub_of(open_channel: Callable[[str], grpc.Channel]) -> Callable[[DBManager], DBManagerStub]:
    return lambda db_manager: DBManagerStub(open_channel(db_manager.address))


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Trials]:
    """Files of a trial listener, and connections to it."""
    with Trials(tmp_path) as trials:
        yield trials


@pytest.fixture
def token() -> str:
    return new_token()


@pytest.fixture
def token_server(trials: Trials, token: str, database_url: str) -> Iterator[DBManager]:
    """A DB manager that lets ``token`` report for trial-a of the namespace team-a."""
    trials.write_tokens(hashed("team-a", token, "trial-a", namespace="team-a"))
    with DBManager(database_url, trial_listener=trials.listener()) as server:
        yield server


@pytest.fixture
def issuer() -> Iterator[Any]:
    """Run an issuer of Kubernetes' tokens."""
    from issuers import Issuer  # noqa: PLC0415  where a test asks for it

    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def fetches_follow_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fetch for an unknown key follow the last one at once, and be waited for however busy the machine is."""
    from katib_callbacks.db_manager.authentication.issuer import keys  # noqa: PLC0415  needs what a test may lack

    monkeypatch.setattr(keys, "MIN_REFRESH_INTERVAL_S", 0.02)
    monkeypatch.setattr(keys, "UNKNOWN_KEY_WAIT_S", 60.0)


@pytest.fixture
def start_process(db: Path) -> Iterator[Callable[..., ServerProcess]]:
    started = []

    def start(address: str = "127.0.0.1:0") -> ServerProcess:
        started.append(ServerProcess(db, address))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture
def make_logs() -> Callable[..., list[MetricLog]]:
    def make(*values: float, name: str = "loss") -> list[MetricLog]:
        """Return a row for each value, a microsecond apart."""
        return [MetricLog(name, value, NOON + timedelta(microseconds=index)) for index, value in enumerate(values)]

    return make
