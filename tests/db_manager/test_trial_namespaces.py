"""Whose a trial's name is: the first namespace's that reports, on every observation_log, until its rows are deleted."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from trials import ROW, hashed, new_token, refusal

from katib_callbacks import StoreError
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.store import observation_log
from katib_callbacks.db_manager.store.owners import TRIAL_NAMESPACES

TABLE = "katib_callbacks_trial_namespaces"
DENIED = "PERMISSION_DENIED"
DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "postgresql": "postgresql+psycopg"}


@pytest.fixture
def ask(database_url):
    url = make_url(database_url)
    engine = create_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))
    yield engine
    engine.dispose()


@pytest.fixture
def owners(ask):
    def owners():
        with ask.connect() as connection:
            return dict(connection.execute(TRIAL_NAMESPACES.select()).all())

    return owners


@pytest.fixture
def teams(trials):
    """Tokens of two namespaces and one of none, each for any trial."""
    tokens = {name: new_token() for name in ("team-a", "team-b", "operator")}
    trials.write_tokens(
        *(hashed(name, tokens[name], "*", namespace=name) for name in ("team-a", "team-b")),
        hashed("operator", tokens["operator"], "*"),
    )
    return tokens


@pytest.fixture
def start(trials, teams, database_url):
    started = []

    def start(**options):
        started.append(DBManager(database_url, trial_listener=trials.listener(), **options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def client(trials, teams):
    return lambda server, team: trials.client(server, teams[team])


def test_the_first_namespace_owns_a_trial_and_others_neither_write_nor_read(start, client, owners, open_raw):
    server = start()
    first, second = client(server, "team-a"), client(server, "team-b")
    first.report("trial")
    for call in (second.report, second.get):
        assert refusal(call, "trial")[0] == DENIED
    first.report("trial", ("2026-01-31T12:00:01Z", "loss", "2"))
    assert [value for _, _, value in first.get("trial")] == ["1", "2"]
    second.report("trial-2")
    assert refusal(first.get, "trial-2")[0] == DENIED
    assert owners() == {"trial": "team-a", "trial-2": "team-b"}
    assert len(open_raw(server).get("trial")) == 2


def test_the_refusal_tells_the_caller_nothing_of_the_owner(start, client, caplog):
    server = start()
    client(server, "team-a").report("trial")
    _, details = refusal(client(server, "team-b").report, "trial")
    assert "team-a" not in details
    assert "caller 'team-b', trial 'trial': the trial belongs to another namespace than team-b" in caplog.text


def test_names_are_told_apart_to_the_letter(start, client, owners):
    server = start()
    names = ["trial", "Trial", "triäl", "trial ", "损失" * 127]
    for number, name in enumerate(names):
        client(server, ("team-a", "team-b")[number % 2]).report(name)
    assert owners() == dict(zip(names, itertools.cycle(["team-a", "team-b"]), strict=False))
    for number, name in enumerate(names):
        assert client(server, ("team-a", "team-b")[number % 2]).get(name) == [ROW]
        assert refusal(client(server, ("team-b", "team-a")[number % 2]).get, name)[0] == DENIED


def test_deleting_over_the_plaintext_listener_frees_the_name(start, client, owners, stub_of):
    server = start()
    client(server, "team-a").report("trial")
    client(server, "team-a").report("other")
    stub_of(server).delete("trial", timeout_s=60)
    assert owners() == {"other": "team-a"}
    client(server, "team-b").report("trial")
    assert refusal(client(server, "team-a").get, "trial")[0] == DENIED


def test_a_manager_without_a_trial_listener_frees_the_name_too(start, client, owners, stub_of, database_url):
    client(start(), "team-a").report("trial")
    with DBManager(database_url) as plain:
        stub_of(plain).delete("trial", timeout_s=60)
    assert owners() == {}


def test_a_credential_without_a_namespace_neither_owns_nor_is_kept_out(start, client, owners):
    server = start()
    client(server, "operator").report("trial")
    assert owners() == {}
    client(server, "team-a").report("trial", ("2026-01-31T12:00:01Z", "loss", "2"))
    assert len(client(server, "operator").get("trial")) == 2
    assert owners() == {"trial": "team-a"}


def test_reading_claims_nothing(start, client, owners, open_raw):
    server = start()
    open_raw(server).report("trial", ROW)
    assert client(server, "team-b").get("trial") == [ROW]
    assert owners() == {}
    client(server, "team-a").report("trial", ("2026-01-31T12:00:01Z", "loss", "2"))
    assert refusal(client(server, "team-b").get, "trial")[0] == DENIED


def test_a_trial_that_changes_hands_after_it_was_looked_whose_it_is_is_not_read(start, client, monkeypatch):
    server = start()
    client(server, "team-a").report("trial")
    monkeypatch.setattr(
        observation_log, "check_owner", lambda *_: None
    )  # what it said a moment ago, when it was nobody's
    assert client(server, "team-b").get("trial") == []
    assert client(server, "team-a").get("trial") == [ROW]


def test_rows_that_are_refused_claim_nothing(start, client, owners):
    server = start()
    assert refusal(client(server, "team-a").report, "trial", ("noon", "loss", "1"))[0] == "INVALID_ARGUMENT"
    assert owners() == {}


def test_two_managers_agree_on_one_owner(start, client, owners, open_raw):
    servers = [start(), start(keep_duplicates=True)]
    clients = [(team, client(server, team)) for server in servers for team in ("team-a", "team-b") for _ in range(2)]

    def report(team, caller, trial):
        try:
            caller.report(trial, ROW)
        except Exception as error:  # noqa: BLE001  to be told apart below
            return team, error.code().name
        return team, "OK"

    for number in range(12):
        trial = f"trial-{number}"
        with ThreadPoolExecutor(len(clients)) as threads:
            calls = [threads.submit(report, team, caller, trial) for team, caller in clients]
        answers = {call.result() for call in calls}
        clients = [(team, client(server, team)) for server in servers for team in ("team-a", "team-b") for _ in (0, 1)]
        (owner,) = {team for team, code in answers if code == "OK"}
        assert {code for team, code in answers if team != owner} == {DENIED}
        assert {code for team, code in answers if team == owner} == {"OK"}
        assert owners()[trial] == owner
        assert open_raw(servers[0]).get(trial)[0] == ROW


def test_without_a_trial_listener_there_is_no_such_table(database_url, ask):
    DBManager(database_url).start().stop()
    assert inspect(ask).get_table_names() == ["observation_logs"]


def test_where_others_make_the_tables_a_missing_one_is_named(start, database_url, ask):
    DBManager(database_url).start().stop()
    with pytest.raises(StoreError, match=TABLE):
        start(is_initialized=True)
    with ask.begin() as connection:
        TRIAL_NAMESPACES.create(connection)
    start(is_initialized=True)


def test_a_trial_listener_starts_on_what_the_last_one_left(start, client, ask):
    server = start()
    client(server, "team-a").report("trial")
    server.stop()
    assert refusal(client(start(), "team-b").report, "trial")[0] == DENIED
    with ask.connect() as connection:
        assert connection.execute(text(f"SELECT COUNT(*) FROM {TABLE}")).scalar() == 1  # noqa: S608  a constant
