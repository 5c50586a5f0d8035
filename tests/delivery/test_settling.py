"""What is done when it is unclear what a call did: each row ends in the database once."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partners import LOST_REPLY, LOST_REQUEST, NOON, TRUNCATED, FastClock, Fault, ScriptedDBManager

from katib_callbacks import DeliveryError, KatibReporter, MetricLog, RejectedError, UnavailableError
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.sinks.katib.sink import DBManagerSink


def test_a_lost_reply_is_not_sent_twice(server, reporter):
    server.report_faults = [LOST_REPLY]

    receipt = reporter.report({"loss": 0.5, "accuracy": 0.9})

    assert server.calls == ["report", "get"]
    assert server.questions == [("loss", server.rows[0][3], server.rows[0][3])], "of one row: the table has no index"
    assert server.values() == [("loss", "0.5"), ("accuracy", "0.9")]
    assert receipt.verified
    assert receipt.attempts == 2
    assert receipt.sinks["katib"].verified


def test_a_lost_request_is_sent_again_with_the_same_timestamps(server, reporter):
    server.report_faults = [LOST_REQUEST]

    receipt = reporter.report({"loss": 0.5}, timestamp=NOON.replace(year=2090))

    assert server.rows == [("trial", "loss", "0.5", "2090-01-31T12:00:00.000000Z")]
    assert not receipt.verified


def test_a_deadline_that_passes_while_the_server_still_commits_leaves_one_row(server):
    server.report_faults = [Fault(is_stored=True, hang_s=3.0)]
    with KatibReporter(server.address, trial_name="trial", timeout_s=10) as reporter:
        receipt = reporter.report({"loss": 0.5})
    time.sleep(0.5)

    assert server.calls.count("report") == 1
    assert server.values() == [("loss", "0.5")]
    assert receipt.verified


def test_a_server_that_hangs_does_not_eat_the_whole_budget_in_one_call(server):
    server.report_faults = [Fault("UNAVAILABLE", hang_s=30)]
    with KatibReporter(server.address, trial_name="trial", timeout_s=10) as reporter:
        receipt = reporter.report({"loss": 0.5})

    assert server.calls.count("report") == 2
    assert receipt.delivered == 1
    assert server.values() == [("loss", "0.5")]


@pytest.mark.parametrize(
    ("status", "late_s"), [("UNAVAILABLE", 0.5), ("UNAVAILABLE", 1.0), ("UNAVAILABLE", 1.9), ("CANCELLED", 8.0)]
)
def test_rows_that_are_committed_late_are_waited_for(server, reporter, status, late_s):
    server.report_faults = [Fault(status, "Socket closed", stored_after_s=late_s)]

    receipt = reporter.report({"loss": 0.5})

    assert server.calls.count("report") == 1
    assert server.values() == [("loss", "0.5")]
    assert receipt.verified


class StandingClock(FastClock):
    """Runs on by pauses alone."""

    def now_s(self):
        return self._skipped_s


def test_a_server_that_was_away_has_to_answer_twice_a_second_apart(server):
    server.report_faults = [LOST_REPLY]
    server.get_faults = [Fault("UNAVAILABLE", "failed to connect to all addresses")] * 10 + [TRUNCATED] * 2
    runtime = StandingClock().runtime

    with KatibReporter(server.address, trial_name="trial", _runtime=runtime) as reporter:
        assert reporter.report({"loss": 0.5}).verified
    assert server.calls == ["report"] + ["get"] * 13


@pytest.mark.parametrize(("abandoned_s", "is_stored"), [(1.0, True), (5.0, False)])
def test_rows_of_an_earlier_process_are_sent_when_two_answers_a_second_apart_lack_them(server, abandoned_s, is_stored):
    """Nobody has been sending them for a second, or for so long that their absence need not be asked for so long."""
    log = MetricLog("loss", 0.5, NOON.replace(year=2090))
    if is_stored:
        server.rows = [("trial", "loss", "0.5", "2090-01-31T12:00:00.000000Z")]
    slow = [*[Fault("UNAVAILABLE", "failed to connect to all addresses")] * 10, *[TRUNCATED] * 2]
    if is_stored:
        server.get_faults = [TRUNCATED, *slow]  # the first question is which batches are there
    else:
        server.report_faults = [LOST_REPLY]
        server.on_report = lambda: server.get_faults.extend(slow)

    sink = DBManagerSink(Endpoint(server.address), runtime=StandingClock().runtime)
    outcome = sink.resend("trial", [log], deadline_s=480, abandoned_s=abandoned_s)

    assert outcome.delivered == 1
    assert server.calls.count("report") == (not is_stored)
    assert server.values() == [("loss", "0.5")]


def test_a_table_without_an_index_is_asked_seldom(server, reporter):
    server.report_faults = [Fault("CANCELLED")]  # which says least of how long a commit may still take

    reporter.report({"loss": 0.5})

    assert server.calls.count("report") == 2
    assert 3 <= server.calls.count("get") <= 20


def test_one_truncated_answer_does_not_pass_for_absence(server, reporter):
    server.report_faults = [LOST_REPLY]
    server.get_faults = [TRUNCATED]

    receipt = reporter.report({"loss": 0.5})

    assert server.calls == ["report", "get", "get"]
    assert server.values() == [("loss", "0.5")]
    assert receipt.verified


def test_questions_that_fail_are_asked_again(server, reporter):
    server.report_faults = [LOST_REPLY]
    server.get_faults = [Fault("UNAVAILABLE", "Socket closed"), Fault("UNKNOWN", "invalid connection")]

    reporter.report({"loss": 0.5})

    assert server.calls == ["report", "get", "get", "get"]
    assert server.values() == [("loss", "0.5")]


def test_a_server_that_forbids_reading_leaves_the_rows_pending_and_is_not_sent_them_again(server, reporter):
    server.report_faults = [LOST_REPLY]
    server.get_faults = [Fault("PERMISSION_DENIED", "RBAC: access denied")]

    with pytest.raises(
        UnavailableError, match=r"trial 'trial' may not have reached .*cannot be read back.*RBAC"
    ) as caught:
        reporter.report({"loss": 0.5})

    assert caught.value.pending == 1
    assert server.calls == ["report", "get"]


@pytest.mark.parametrize("time_stamp", ["yesterday", "", "2026-13-45T99:00:00Z"])
def test_an_answer_that_cannot_be_read_proves_nothing_and_breaks_nothing(server, reporter, time_stamp):
    server.report_faults = [LOST_REPLY]
    garbled = iter([time_stamp, time_stamp])
    server.print_time_stamp = lambda written: next(garbled, written)

    receipt = reporter.report({"loss": 0.5})

    assert server.calls == ["report", "get", "get", "get"]
    assert server.values() == [("loss", "0.5")]
    assert receipt.verified


@pytest.mark.logs_error("Exception deserializing message")
def test_bytes_that_are_no_answer_leave_the_rows_pending():
    answers = grpc.method_handlers_generic_handler(
        "api.v1.beta1.DBManager",
        {
            "ReportObservationLog": grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            ),
            "GetObservationLog": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff" * 20),
        },
    )
    with ThreadPoolExecutor(2) as workers:
        server = grpc.server(workers)
        server.add_generic_rpc_handlers((answers,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        reporter = KatibReporter(f"127.0.0.1:{port}", trial_name="trial", timeout_s=60, _runtime=FastClock().runtime)
        with pytest.raises(UnavailableError, match=r"may not have reached.*INTERNAL") as caught:
            reporter.report({"loss": 0.5})
        server.stop(0).wait()

    assert caught.value.pending == 1


def test_only_the_row_itself_proves_its_batch(server, reporter):
    time_stamp = "2090-01-31T12:00:00Z"
    server.rows = [
        ("trial", "Loss", "0.5", time_stamp),  # MySQL's comparison ignores case
        ("trial", "loss", "0.25", time_stamp),
        ("other", "loss", "0.5", time_stamp),
    ]
    server.report_faults = [LOST_REQUEST]

    reporter.report({"loss": 0.5}, timestamp=NOON.replace(year=2090))

    assert ("loss", "0.5") in server.values()


def test_a_row_that_comes_back_in_another_way_does_not_hide_its_batch(server, reporter):
    server.report_faults = [LOST_REPLY]
    server.print_time_stamp = lambda written: NOON.isoformat() if written == server.rows[0][3] else written

    receipt = reporter.report({"loss": 0.5, "accuracy": 0.9})

    assert server.calls == ["report", "get", "get"]
    assert [name for name, *_ in server.questions] == ["loss", "accuracy"]
    assert receipt.verified


def test_a_row_is_recognised_without_its_trailing_zeros(server, reporter):
    server.report_faults = [LOST_REPLY]
    server.print_time_stamp = lambda written: written.rstrip("Z").rstrip("0").rstrip(".") + "Z"

    reporter.report({"loss": 0.5}, timestamp=NOON.replace(year=2090, microsecond=500_000))

    assert server.calls == ["report", "get"]
    assert server.values() == [("loss", "0.5")]


REFUSALS = [
    Fault("UNAVAILABLE", "sqlite:////katib.db: cannot write to the database: attempt to write a readonly database"),
    Fault("UNKNOWN", "Execute SQL INSERT failed: Error 1290 (HY000): running with the --read-only option"),
    Fault("UNKNOWN", "Execute SQL INSERT failed: pq: could not extend file: No space left on device"),
    Fault("RESOURCE_EXHAUSTED", "every connection to the database is in use"),
    LOST_REQUEST,
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
def test_writes_that_are_refused_for_a_minute_are_tried_with_growing_pauses_until_they_are_taken(
    server, clock, reporter, refusal
):
    start_s = clock.now_s()
    server.on_report = lambda: server.report_faults.extend([refusal] * (clock.now_s() - start_s < 60))

    receipt = reporter.report({"loss": 0.5})

    assert server.values() == [("loss", "0.5")]
    assert receipt.delivered == 1
    assert 60 <= clock.now_s() - start_s < 90
    assert 8 < server.calls.count("report") < 20


def test_a_request_that_breaks_the_connection_each_time_ends_with_the_deadline_and_is_sent_seldom(server, reporter):
    server.report_faults = [LOST_REQUEST] * 1_000

    with pytest.raises(UnavailableError, match=r"the deadline of 4[78][\d.]+ s has passed.*Socket closed") as caught:
        reporter.report({"loss": 0.5})
    assert "Socket closed" in str(caught.value.__cause__)

    assert 20 < server.calls.count("report") < 60


def test_always_verifying_reads_successes_back_too(server, clock):
    with KatibReporter(server.address, trial_name="trial", verify="always", _runtime=clock.runtime) as reporter:
        receipt = reporter.report({"loss": 0.5})

    assert server.calls == ["report", "get"]
    assert receipt.verified


def test_a_success_that_cannot_be_read_back_is_sent_again_where_all_are_verified(server, clock):
    server.report_faults = [Fault()]  # an answer, and nothing stored
    with KatibReporter(server.address, trial_name="trial", verify="always", _runtime=clock.runtime) as reporter:
        receipt = reporter.report({"loss": 0.5})

    assert server.calls.count("report") == 2
    assert server.values() == [("loss", "0.5")]
    assert receipt.verified


def test_a_success_that_shows_late_is_waited_for_where_all_are_verified(server, clock):
    server.report_faults = [Fault(stored_after_s=1.9)]
    with KatibReporter(server.address, trial_name="trial", verify="always", _runtime=clock.runtime) as reporter:
        assert reporter.report({"loss": 0.5}).verified

    assert server.calls.count("report") == 1
    assert server.values() == [("loss", "0.5")]


def test_batches_that_were_all_read_back_are_verified(server, reporter):
    server.report_faults = [LOST_REPLY, LOST_REPLY]

    assert reporter.report_logs([MetricLog("loss", number, NOON) for number in range(1_500)]).verified
    assert server.batch_sizes == [1_000, 500]


def test_rows_go_out_in_batches_of_a_thousand_and_each_is_settled_by_itself(server, reporter):
    server.report_faults = [Fault(is_stored=True), LOST_REPLY, LOST_REQUEST]

    receipt = reporter.report_logs([MetricLog("loss", number, NOON) for number in range(2_500)])

    assert server.batch_sizes == [1_000, 1_000, 500, 500]
    assert [value for _, value in server.values()] == [str(number) for number in range(2_500)]
    assert receipt.delivered == 2_500
    assert not receipt.verified


@pytest.mark.parametrize(("batch_s", "told"), [(0.5, []), (2.5, [2_000, 4_000]), (6.0, [1_000, 2_000, 3_000, 4_000])])
def test_a_long_delivery_tells_every_five_seconds_how_far_it_is(server, caplog, batch_s, told):
    caplog.set_level("INFO", logger="katib_callbacks")
    batches_s = count(1)
    now_s = 0.0

    def pass_time():
        nonlocal now_s
        now_s = next(batches_s) * batch_s

    server.on_report = pass_time
    runtime = Runtime(environ=dict, monotonic=lambda: now_s)
    with KatibReporter(server.address, trial_name="trial", _runtime=runtime) as reporter:
        reporter.report_logs([MetricLog("loss", number, NOON) for number in range(4_500)])

    assert [message for message in caplog.messages if message.startswith("Delivered")] == [
        f"Delivered {rows} of 4500 rows to {server.address}." for rows in told
    ]


def test_a_refusal_in_the_middle_counts_what_was_delivered(server, reporter):
    server.report_faults = [Fault(is_stored=True), Fault("INVALID_ARGUMENT", "no")]

    with pytest.raises(
        RejectedError, match=r"^1,500 of 2,500 rows of trial 'trial' did not reach the DB manager at"
    ) as caught:
        reporter.report_logs([MetricLog("loss", number, NOON) for number in range(2_500)])

    assert "INVALID_ARGUMENT: no" in str(caught.value)
    assert "the last to fail" not in str(caught.value), "which was said already"
    assert (caught.value.pending, caught.value.attempts) == (1_500, 2)
    assert len(server.values()) == 1_000


FAULTS = st.one_of(
    st.just(None),
    st.builds(
        Fault,
        st.sampled_from(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"]),
        st.just("Socket closed"),
        is_stored=st.booleans(),
        stored_after_s=st.sampled_from([0.0, 0.0, 0.3, 1.0, 1.9]),
    ),
    st.builds(Fault, st.just("UNAVAILABLE"), st.just("failed to connect to all addresses")),
    st.builds(Fault, st.just("UNKNOWN"), st.just("Prepare SQL statement failed: Error 1040: Too many connections")),
    st.builds(Fault, st.just("INVALID_ARGUMENT"), st.just("no")),
)
READ_FAULTS = st.one_of(
    st.just(None), st.builds(Fault, st.sampled_from(["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"]), st.just("lost"))
)


@settings(max_examples=60)
@given(
    report_faults=st.lists(FAULTS, max_size=12),
    get_faults=st.lists(READ_FAULTS, max_size=12),
    rows=st.sampled_from([1, 2, 1_001, 2_500]),
    timeout_s=st.sampled_from([3.0, 30.0, 480.0]),
)
def test_under_any_schedule_of_faults_each_row_is_stored_once_or_said_to_be_pending(
    report_faults, get_faults, rows, timeout_s
):
    clock = FastClock()
    with ScriptedDBManager(clock.now_s) as server:
        server.report_faults = [fault or Fault(is_stored=True) for fault in report_faults]
        server.get_faults = [fault for fault in get_faults if fault is not None]
        with KatibReporter(server.address, trial_name="trial", timeout_s=timeout_s, _runtime=clock.runtime) as reporter:
            try:
                reporter.report_logs([MetricLog("loss", number, NOON) for number in range(rows)])
                pending = 0
            except DeliveryError as error:
                pending = error.pending
        server.carry_out_everything()

        stored = [int(value) for _, value in server.values()]
        assert len(set(stored)) == len(stored)
        assert set(range(rows - pending)) <= set(stored)
