"""What is written of refused calls, how they are counted, and how many a peer may make."""

import logging
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trials import ROW, hashed, new_token, refusal

from katib_callbacks.cli.log_format import JsonFormatter
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service import limits
from katib_callbacks.db_manager.service.limits import Buckets, FailureLimit, host_of
from katib_callbacks.db_manager.trials.audit import TOTAL_BURST, Audit, plain
from katib_callbacks.wire import methods

AUDIT = "katib_callbacks.db_manager.trials.audit"
EXHAUSTED = ("RESOURCE_EXHAUSTED", "too many refused calls on this connection; try again later, or on another one")


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def lines(caplog):
    return [record for record in caplog.records if record.name == AUDIT]


def test_a_refused_call_writes_one_line_with_all_that_is_known(trials, token_server, token, caplog):
    client = trials.client(token_server, token)
    refusal(client.report, "trial-b")
    (record,) = lines(caplog)
    assert record.levelno == logging.WARNING
    assert (record.caller, record.trial, record.code) == ("team-a", "trial-b", "PERMISSION_DENIED")
    assert (record.method, record.reason) == (methods.REPORT_OBSERVATION_LOG, "the credential is for other trials")
    assert record.peer.startswith("ipv")
    assert record.getMessage() == (
        f"refused {methods.REPORT_OBSERVATION_LOG} from {record.peer} with PERMISSION_DENIED, caller 'team-a', "
        "trial 'trial-b': the credential is for other trials"
    )


def test_calls_that_are_answered_write_none(trials, token_server, token, caplog):
    client = trials.client(token_server, token)
    client.report("trial-a")
    client.get("trial-a")
    assert lines(caplog) == []


def test_the_token_stands_in_no_line_and_no_answer(trials, token_server, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = new_token()
    for value in (f"Bearer {wrong}", wrong, f"Basic {wrong}", f"Bearer {wrong} {wrong}"):
        _, details = refusal(trials.client(token_server).report, "trial-a", metadata=(("authorization", value),))
        assert wrong not in details
    assert len(lines(caplog)) == 4
    written = "\n".join(JsonFormatter().format(record) + record.getMessage() for record in caplog.records)
    assert wrong not in written
    assert wrong[:12] not in written


@pytest.mark.parametrize(
    "name", ["a\nERROR katib_callbacks: all is lost", "a\r\x1b[31mred", "\u202eevil", "x" * 255, "'; trial 'b", "损失"]
)
def test_a_trials_name_cannot_forge_a_line(trials, token_server, token, caplog, name):
    refusal(trials.client(token_server, token).report, name)
    (record,) = lines(caplog)
    for line in (record.getMessage(), JsonFormatter().format(record)):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 1_500
    assert record.getMessage().count("'") == 4 + record.getMessage().count("\\'")


def test_a_methods_name_cannot_forge_a_line_either(trials, token_server, token, caplog):
    path = "/api.v1.beta1.DBManager/" + "x" * 1_000
    refusal(trials.client(token_server, token).send, path, b"")
    (record,) = lines(caplog)
    assert len(record.getMessage()) < 500


@given(st.text(max_size=400), st.integers(1, 300))
def test_whatever_a_caller_sends_is_one_short_line_of_ascii(text, limit):
    shown = plain(text, limit)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= limit + 3


def test_refusals_are_counted_by_a_few_words(trials, token, db):
    pytest.importorskip("prometheus_client", reason="`databases` has it")
    trials.write_tokens(hashed("a", token, "trial-a", namespace="team-a"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener(), metrics_address="127.0.0.1:0") as server:
        client = trials.client(server, token)
        client.report("trial-a")
        refusal(client.report, "trial-b")
        refusal(client.delete, "trial-a")
        refusal(client.send, "/some.Service/Method", b"")
        refusal(trials.client(server).report, "trial-a")
        refusal(trials.client(server, new_token()).report, "trial-a")
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=60) as response:
            text = response.read().decode()
    counted = {line for line in text.splitlines() if line.startswith("katib_db_manager_refusals_total")}
    assert {line for line in counted if not line.endswith(" 0.0")} == {
        'katib_db_manager_refusals_total{reason="trial"} 1.0',
        'katib_db_manager_refusals_total{reason="method"} 2.0',
        'katib_db_manager_refusals_total{reason="no credential"} 1.0',
        'katib_db_manager_refusals_total{reason="credential"} 1.0',
    }
    assert 'katib_db_manager_calls_total{code="PERMISSION_DENIED",method="ReportObservationLog"} 1.0' in text
    assert 'katib_db_manager_calls_total{code="UNIMPLEMENTED",method="other"} 1.0' in text


# -- limits ------------------------------------------------------------------------------------------------------------


def test_after_some_refusals_a_connection_is_not_judged_any_more(trials, token_server, token, caplog):
    token_server._running.trials.service.limit._connections._per_s = 0.0  # however long the calls take
    client = trials.client(token_server, new_token())
    answers = [refusal(client.report, "trial-a") for _ in range(limits.CONNECTION_BURST + 5)]
    assert answers[0][0] == "UNAUTHENTICATED"
    assert EXHAUSTED in answers
    assert answers.index(EXHAUSTED) >= limits.CONNECTION_BURST
    neighbour = trials.client(token_server, token)  # from the same address
    for _ in range(3):
        neighbour.report("trial-a")
    assert neighbour.get("trial-a") == [ROW]


def test_an_address_with_many_failures_fails_once_a_connection_and_good_calls_go_through(
    trials, token_server, token, monkeypatch
):
    monkeypatch.setattr(limits, "HOST_PER_S", 0.0)
    limit = token_server._running.trials.service.limit
    for _ in range(limits.HOST_BURST):
        limit._hosts.take("127.0.0.1")
        limit._hosts.take("::/64")
    limit._hosts._per_s = limit._connections._per_s = 0.0
    stranger = trials.client(token_server, new_token())
    assert refusal(stranger.report, "trial-a")[0] == "UNAUTHENTICATED"
    assert refusal(stranger.report, "trial-a") == EXHAUSTED
    for _ in range(3):
        neighbour = trials.client(token_server, token)
        neighbour.report("trial-a")
        assert neighbour.get("trial-a") == [ROW]


def test_a_flood_of_refusals_writes_few_lines_and_says_how_many_are_missing(trials, db, token, caplog):
    trials.write_tokens(hashed("a", token, "trial-a"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        client = trials.client(server, new_token())
        for _ in range(300):
            refusal(client.report, "trial-a")
    written = lines(caplog)
    assert len(written) < 150
    assert "more refusals were not written" in written[-1].getMessage()
    assert sum(record.unwritten for record in written) + len(written) - 1 == 300


def test_one_address_leaves_lines_for_others_and_all_together_are_limited(caplog):
    clock = Clock()
    audit = Audit(clock)

    def write(host):
        audit.write("m", f"ipv4:{host}:1", "UNAUTHENTICATED", "because")

    for _ in range(1_000):
        write("10.0.0.1")
    assert len(lines(caplog)) == 30
    write("10.0.0.2")
    assert len(lines(caplog)) == 31
    assert lines(caplog)[-1].unwritten == 970
    for number in range(10_000):
        write(f"10.1.{number // 250}.{number % 250}")
    assert len(lines(caplog)) == TOTAL_BURST
    clock.now_s = 60
    write("10.0.0.3")
    assert "(9731 refusals before this one were not written)" in lines(caplog)[-1].getMessage()


def test_buckets_fill_again_and_forget_the_oldest():
    clock = Clock()
    buckets = Buckets(2, 0.5, clock)
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    assert (buckets.is_empty("a"), buckets.is_full("b")) == (True, True)
    clock.now_s = 2
    assert (buckets.is_empty("a"), buckets.is_full("a")) == (False, False)
    clock.now_s = 1_000
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    for number in range(10 * limits.MAX_PEERS):
        buckets.take(str(number))
    assert len(buckets._levels) == limits.MAX_PEERS


def test_a_connection_that_waits_is_judged_again():
    clock = Clock()
    limit = FailureLimit(clock)
    for _ in range(limits.CONNECTION_BURST):
        assert not limit.is_over("ipv4:10.0.0.1:1")
        limit.add("ipv4:10.0.0.1:1")
    assert limit.is_over("ipv4:10.0.0.1:1")
    assert not limit.is_over("ipv4:10.0.0.1:2")
    clock.now_s = 1.5
    assert not limit.is_over("ipv4:10.0.0.1:1")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:40404", "10.0.0.1"),
        ("ipv6:%5B::1%5D:40404", "::/64"),
        ("ipv6:[2001:db8::1]:1", "2001:db8::/64"),
        ("ipv6:%5B2001:db8:0:0:ffff::1%25eth0%5D:1", "2001:db8::/64"),
        ("ipv6:[::ffff:10.0.0.1]:1", "10.0.0.1"),
        ("unix:/socket", "unix:/socket"),
        ("ipv4:nonsense:1", "nonsense"),
    ],
)
def test_a_peers_host_is_read_from_what_grpc_calls_it(peer, host):
    assert host_of(peer) == host
