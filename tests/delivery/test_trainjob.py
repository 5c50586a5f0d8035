"""The sink `trainjob`: what a TrainJob's status server gets, and what becomes of a training that it does not serve."""

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partners import FastClock
from status_server import MAX_BODY_BYTES, PATH, StatusServer, _judge

from katib_callbacks import (
    ConfigurationError,
    KatibReporter,
    MetricLog,
    RejectedError,
    ReporterClosedError,
    SinkOutcome,
    UnavailableError,
)
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.trainjob import board
from katib_callbacks.sinks.trainjob.server import resolve_status_server
from katib_callbacks.sinks.trainjob.sink import TrainJobSink
from katib_callbacks.sinks.trainjob.status import Status, percentage

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture
def server(tmp_path):
    with StatusServer(tmp_path) as server:
        yield server


@pytest.fixture
def clock(server):
    return FastClock(server.variables)


@pytest.fixture
def reporter(clock):
    with KatibReporter(sinks=["trainjob"], timeout_s=20, _runtime=clock.runtime) as reporter:
        yield reporter


def loop_until(condition, step):
    """Call ``step``, as a training does, until the condition holds."""
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        step()
        time.sleep(0.005)


def sending():
    return [thread for thread in threading.enumerate() if thread.name == "katib-callbacks-trainjob"]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_a_report_is_shown_with_the_token_and_answered(server, reporter):
    receipt = reporter.report({"accuracy": 0.5, "loss": 1e-7})

    (seen,) = server.seen
    assert seen.metrics == {"accuracy": "0.5", "loss": "1e-07"}
    assert seen.progress is None
    assert (receipt.trial_name, receipt.delivered, receipt.attempts, receipt.skipped) == (None, 2, 1, None)
    assert receipt.sinks == {"trainjob": SinkOutcome(delivered=2, attempts=1)}


def test_of_a_history_the_last_values_are_shown(server, reporter):
    now = datetime.now(timezone.utc)
    reporter.report_logs([MetricLog("loss", 3 - second, now + timedelta(seconds=second)) for second in range(3)])

    assert server.seen[-1].metrics == {"loss": "1"}


def test_the_progress_of_a_loop_is_shown_and_its_end(server, reporter):
    for step in range(5):
        loop_until(
            lambda step=step: server.percentages[-1:] == [25 * step],
            lambda step=step: reporter.report_progress(step / 4, {"loss": 5 - step}),
        )

    assert server.percentages == sorted(server.percentages)
    assert server.seen[-1].metrics == {"loss": "1"}
    assert server.seen[-1].remaining_s == 0
    assert all(one.thread != threading.current_thread().name for one in server.seen)


def test_a_report_keeps_what_was_shown_before(server, reporter):
    reporter.report_progress(0.5, {"loss": 2.0})
    reporter.report({"accuracy": 0.5})

    assert server.seen[-1].metrics == {"loss": "2", "accuracy": "0.5"}
    assert server.seen[-1].progress == 50


def test_another_reporter_of_the_process_does_not_wipe_out_the_first(server, clock, reporter):
    reporter.report({"loss": 2.0})
    with KatibReporter(sinks=["trainjob"], _runtime=clock.runtime) as other:
        other.report({"accuracy": 0.5})

    assert server.seen[-1].metrics == {"loss": "2", "accuracy": "0.5"}


def test_states_that_nobody_waits_for_are_thrown_away(server, clock):
    pause = threading.Event()

    def wait(event, timeout_s):
        return pause.wait(120)  # stands in for the five seconds between two requests

    runtime = Runtime(environ=clock.runtime.environ, monotonic=clock.now_s, wait=wait)
    with KatibReporter(sinks=["trainjob"], _runtime=runtime) as reporter:
        sink = reporter._destinations._made["trainjob"]
        sink.progress(0.0, None, {})
        server.wait_for(lambda: server.percentages == [0])
        for percent in range(1, 100):
            sink.progress(percent / 100, 1.0, {"loss": percent})
        assert server.percentages == [0], "throttled"
        pause.set()
        server.wait_for(lambda: server.percentages == [0, 99])
        assert server.seen[-1].metrics == {"loss": "99"}


def test_the_end_is_shown_when_a_reporter_closes_without_a_report(server, clock):
    with KatibReporter(sinks=["trainjob"], _runtime=Runtime(environ=clock.runtime.environ)) as reporter:
        reporter.report_progress(0.0)
        server.wait_for(lambda: server.percentages == [0])
        reporter.report_progress(1.0)  # within the five seconds in which nothing is sent

    assert server.percentages == [0, 100]


def test_nothing_runs_before_it_is_needed_or_after(clock):
    with KatibReporter(sinks=["trainjob"], _runtime=clock.runtime):
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("katib-callbacks")]


def test_the_token_is_read_again_when_it_changes(server, reporter):
    reporter.report({"loss": 2.0})
    server.rotate("second-token")
    reporter.report({"loss": 1.0})

    assert [one.status for one in server.seen] == [200, 200]


# -- limits ------------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.text(max_size=80), st.floats(), max_size=20),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(-1e300, 1e300)),
)
def test_whatever_metrics_are_called_the_server_takes_the_status(metrics, fraction, remaining_s):
    status = Status()
    status.update(metrics)
    status.fraction, status.remaining_s = fraction, remaining_s

    body = status.body(NOON)

    assert StatusServer.judge(_Judge(), PATH, "Bearer t", body) == (200, "")


class _Judge:
    tokens = frozenset({"t"})


def test_too_many_and_too_long_metrics_are_left_out_with_one_line(caplog):
    status = Status()
    status.update({"é" * 60 + f"-{number:03}" + "long" * 10: float(number) for number in range(400)})
    status.update({"\x00" * 64: 1.0, "objective": 0.5})

    body = status.body(NOON)

    assert len(body) <= MAX_BODY_BYTES
    assert StatusServer.judge(_Judge(), PATH, "Bearer t", body) == (200, "")
    assert b'"objective"' in body
    assert len([line for line in warnings(caplog) if "more than 256 metrics" in line]) == 1


def test_long_names_that_begin_alike_stay_apart():
    status = Status()
    status.update({"x" * 70 + "a": 1.0, "x" * 70 + "b": 2.0})

    assert len(status._metrics) == 2
    assert all(len(name) == 64 for name in status._metrics)


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.0, 0), (0.29, 29), (0.999, 99), (0.99999, 99), (1.0, 100), (-1.0, 0), (2.0, 100)]
)
def test_hundred_is_for_the_end_alone(fraction, shown):
    assert percentage(fraction) == shown


def test_the_test_server_judges_as_the_real_one_does():
    good = {"lastUpdatedTime": "2026-01-31T12:00:00Z", "progressPercentage": 5}

    assert _judge(good)[0] == 200
    for bad in (
        {"lastUpdatedTime": "2026-01-31 12:00:00"},
        {"progressPercentage": 101},
        {"progressPercentage": 5.0},
        {"estimatedRemainingSeconds": -1},
        {"estimatedRemainingSeconds": 2**31},
        {"metrics": [{"name": "", "value": "1"}]},
        {"metrics": [{"name": "n" * 65, "value": "1"}]},
        {"metrics": [{"name": "n", "value": ""}]},
        {"metrics": [{"name": "n", "value": "1"}] * 257},
    ):
        assert _judge(good | bad)[0] == 422, bad
    assert StatusServer.judge(_Judge(), PATH, "Bearer t", b" " * (MAX_BODY_BYTES + 1))[0] == 413
    assert StatusServer.judge(_Judge(), PATH, "Bearer other", b"{}")[0] == 403
    assert StatusServer.judge(_Judge(), "/other", "Bearer t", b"{}")[0] == 404


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset", 500, 503, 429])
def test_a_report_is_tried_again(server, reporter, fault):
    server.behave(fault, fault)

    receipt = reporter.report({"loss": 1.0})

    assert (receipt.delivered, receipt.attempts) == (1, 3)
    assert server.accepted[-1].metrics == {"loss": "1"}


@pytest.mark.parametrize("fault", ["hang", "drip", "drip-headers"])
def test_a_request_that_gets_no_whole_answer_ends_with_its_time(server, clock, fault):
    server.behave_always(fault)
    with (
        KatibReporter(sinks=["trainjob"], timeout_s=1, _runtime=Runtime(environ=clock.runtime.environ)) as reporter,
        pytest.raises(UnavailableError, match="no answer within"),
    ):
        reporter.report({"loss": 1.0})


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "is not one of a pod of this TrainJob"),
        (404, "no such TrainJob"),
        (422, "does not take"),
        (400, "told to"),
    ],
)
def test_what_is_refused_for_good_is_not_tried_again(server, reporter, status, advice):
    server.behave_always(status)

    with pytest.raises(RejectedError, match=advice) as caught:
        reporter.report({"loss": 1.0})

    assert len(server.seen) == 1
    assert (caught.value.attempts, caught.value.pending) == (1, 1)
    assert f"told to answer {status}" in str(caught.value)
    assert "MetricsUnavailable" not in str(caught.value), "this is no Katib trial"


def test_of_rows_that_are_refused_each_counts(server, clock, katib_db_manager):
    server.behave_always(422)
    now = datetime.now(timezone.utc)
    logs = [MetricLog("loss", second, now + timedelta(seconds=second)) for second in range(30)]
    with KatibReporter(
        katib_db_manager.address, trial_name="test-trial", sinks=["katib", "trainjob"], _runtime=clock.runtime
    ) as reporter:
        outcome = reporter.report_logs(logs).sinks["trainjob"]

    assert (outcome.delivered, outcome.attempts) == (0, 1)


def test_a_wrong_token_is_refused_and_never_shown(server, reporter):
    server.rotate("other")
    server.token_path.write_text("my-secret", encoding="utf-8")

    with pytest.raises(RejectedError, match="403") as caught:
        reporter.report({"loss": 1.0})

    assert "my-secret" not in str(caught.value)


def test_a_proxy_that_answers_with_the_headers_shows_no_token(server, reporter):
    server.behave("echo")
    with pytest.raises(RejectedError, match=r"refused: Bearer \*\*\*") as caught:
        reporter.report({"loss": 0.5})

    assert "first-token" not in str(caught.value)


def test_a_redirect_is_not_followed_with_the_token(server, reporter):
    server.behave_always("redirect")

    with pytest.raises(RejectedError, match="a redirect, which is not followed"):
        reporter.report({"loss": 1.0})

    assert server.begun == 1


def test_proxies_are_not_asked(server, clock, reporter, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert reporter.report({"loss": 1.0}).delivered == 1


def test_a_server_that_nobody_vouches_for_gets_no_token(server, reporter, tmp_path):
    from certificates import Authority  # noqa: PLC0415  here alone

    server.ca_path.write_bytes(Authority("another").certificate)

    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        reporter.report({"loss": 1.0})

    assert server.begun == 0


@pytest.mark.parametrize("path", ["token_path", "ca_path"])
def test_a_missing_file_is_named_and_breaks_no_training(server, reporter, caplog, path):
    getattr(server, path).unlink()

    reporter.report_progress(0.5)
    with pytest.raises(
        UnavailableError, match=f"KUBEFLOW_TRAINER_SERVER_.*{getattr(server, path).name} cannot be read"
    ):
        reporter.report({"loss": 1.0})

    assert len([line for line in warnings(caplog) if "was not shown" in line]) == 1


def test_a_failure_is_said_once_and_that_it_is_over(server, reporter, caplog):
    caplog.set_level(logging.INFO, "katib_callbacks")
    server.behave(503, 503, 403)

    loop_until(lambda: bool(server.accepted), lambda: reporter.report_progress(0.1))
    reporter.report({"loss": 1.0})

    lines = [record.getMessage() for record in caplog.records if "TrainJob's status" in record.getMessage()]
    assert [("503" in line, "403" in line, "again" in line) for line in lines] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_progress_under_a_hanging_server_waits_for_nothing(server, clock, monkeypatch):
    monkeypatch.setattr(board, "REQUEST_S", 3_600)  # no second one begins, however long this takes
    server.behave_always("hang")
    with KatibReporter(sinks=["trainjob"], timeout_s=1, _runtime=Runtime(environ=clock.runtime.environ)) as reporter:
        reporter.report_progress(0.0)
        server.wait_for(lambda: server.begun == 1)
        sink = reporter._destinations._made["trainjob"]
        for step in range(1, 1000):
            sink.progress(step / 1000, 1.0, {"loss": step})

        assert server.begun == 1, "the one request is still under way: nothing has waited for it"
        assert [t.name for t in threading.enumerate() if t.name.startswith("katib")] == ["katib-callbacks-trainjob"]
        server.release()


def test_a_report_does_not_wait_behind_a_hanging_request_with_older_news(server, clock, monkeypatch):
    monkeypatch.setattr(board, "REQUEST_S", 3_600)  # it would not end by itself before the report's budget
    server.behave("hang")
    with KatibReporter(sinks=["trainjob"], timeout_s=60, _runtime=Runtime(environ=clock.runtime.environ)) as reporter:
        reporter.report_progress(0.5)
        server.wait_for(lambda: server.begun == 1)

        receipt = reporter.report({"loss": 1.0})

        assert receipt.delivered == 1
        assert (server.percentages, server.begun) == ([50], 2)


def test_beside_another_sink_a_hanging_server_delays_no_report(server, clock, katib_db_manager):
    server.behave("hang")
    with KatibReporter(
        katib_db_manager.address, trial_name="test-trial", sinks=["katib", "trainjob"], _runtime=clock.runtime
    ) as reporter:
        receipt = reporter.report({"loss": 1.0})

        assert receipt.delivered == 1
        assert katib_db_manager.latest() == {"loss": 1.0}
        assert receipt.sinks["trainjob"].error == "still sending when it was asked for"
        server.release()
        server.wait_for(lambda: bool(server.accepted))
    assert server.seen[-1].metrics == {"loss": "1"}


def test_closing_ends_a_report(server, clock):
    server.behave_always("hang")
    reporter = KatibReporter(sinks=["trainjob"], timeout_s=60, _runtime=Runtime(environ=clock.runtime.environ))
    errors = []

    def report():
        try:
            reporter.report({"loss": 1.0})
        except ReporterClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=report)
    thread.start()
    server.wait_for(lambda: server.begun == 1)
    reporter.close()
    thread.join(60)

    assert len(errors) == 1
    server.release()


# -- the end -----------------------------------------------------------------------------------------------------------


def test_metrics_of_calls_that_are_not_shown_stay_until_one_is(server, reporter):
    for step in range(1, 10):
        reporter.report_progress(step / 10, {"loss": 1 / step})
        if step == 5:
            reporter.report_progress(step / 10, {"accuracy": 0.5})
    reporter.report_progress(1.0)
    reporter.close()

    assert server.seen[-1].metrics == {"loss": "0.1111111111111111", "accuracy": "0.5"}
    assert server.percentages[-1] == 100


def test_metrics_that_were_not_shown_yet_travel_with_the_reporter(server):
    with KatibReporter(sinks=["trainjob"], _runtime=runtime_with(**server.variables)) as reporter:
        reporter.report_progress(0.1, {"loss": 2.0})
        reporter.report_progress(0.2, {"accuracy": 0.5})
        state = reporter.__getstate__()  # what pickle takes; the tests' clock has no pickle
        assert state["_unshown"] == {"loss": 2.0, "accuracy": 0.5}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # of the server's threads
def test_a_forked_child_goes_on_with_the_latest_metrics(server, reporter):
    reporter.report_progress(0.1, {"loss": 2.0})
    reporter.report_progress(0.2, {"accuracy": 0.5})
    loop_until(lambda: not sending(), lambda: None)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            reporter.report_progress(1.0, {"f1": 0.25})
            reporter.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert server.seen[-1].metrics == {"loss": "2", "accuracy": "0.5", "f1": "0.25"}


def test_the_end_waits_for_a_server_that_is_away(server):
    """As a report does: the sink is the first."""
    with KatibReporter(sinks=["trainjob"], timeout_s=60, _runtime=runtime_with(**server.variables)) as reporter:
        reporter.report_progress(0.5, {"loss": 1.0})
        server.wait_for(lambda: server.percentages == [50])
        server.stop()
        back = threading.Timer(4.0, server.restart)
        back.start()
        reporter.report_progress(1.0, {"loss": 0.5})
    back.join()

    assert (server.percentages[-1], server.seen[-1].metrics) == (100, {"loss": "0.5"})


def test_the_end_that_cannot_be_shown_is_said(server, clock, caplog):
    reporter = KatibReporter(sinks=["trainjob"], timeout_s=20, _runtime=clock.runtime)
    reporter.report_progress(0.5)
    server.wait_for(lambda: server.percentages == [50])
    server.behave_always(503)
    reporter.report_progress(1.0)
    reporter.close()

    assert "The training has ended, but the TrainJob's status was not shown" in warnings(caplog)[-1]
    assert "503" in warnings(caplog)[-1]


def test_the_end_that_a_report_could_not_show_is_not_tried_again(server, clock, caplog):
    reporter = KatibReporter(sinks=["trainjob"], timeout_s=20, _runtime=clock.runtime)
    server.behave_always(503)
    reporter.report_progress(1.0)
    with pytest.raises(UnavailableError, match="503"):
        reporter.report({"loss": 1.0})
    tried = server.begun
    reporter.close()

    assert server.begun == tried
    assert not [line for line in warnings(caplog) if "has ended" in line]


UNCLOSED = """
from katib_callbacks import KatibReporter
reporter = KatibReporter(sinks={sinks}, trial_name="trial", timeout_s=60)
reporter.report_progress(0.5, {{"loss": 1.0}})
reporter.report_progress(0.75, {{"loss": 0.75}})
reporter.report_progress(1.0, {{"loss": 0.5}})
"""


@pytest.mark.parametrize("sinks", [["trainjob"], ["stdout", "trainjob"]], ids=["first", "second"])
def test_without_a_close_the_end_of_the_process_shows_the_end(server, sinks):
    server.behave(503, 503)
    environ = {**os.environ, **server.variables}
    code = UNCLOSED.format(sinks=sinks)
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=240)

    assert (server.percentages[-1], server.seen[-1].metrics) == (100, {"loss": "0.5"})


def test_of_many_jobs_that_end_at_once_each_shows_its_end(tmp_path):
    def job(number):
        runtime = runtime_with(**server.variables)  # of its own: so it has a status and a thread of its own
        with KatibReporter(sinks=["trainjob"], timeout_s=120, _runtime=runtime) as reporter:
            reporter.report_progress(1.0, {"loss": number})

    with StatusServer(tmp_path, statuses_per_s=5, burst=2) as server:
        jobs = [threading.Thread(target=job, args=(number,)) for number in range(40)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()

        ends = [one.metrics["loss"] for one in server.accepted if one.progress == 100]
        assert sorted(set(ends), key=int) == [str(number) for number in range(40)]


def test_a_certificate_that_does_not_verify_is_tried_ten_times(server, clock, tmp_path):
    from certificates import Authority  # noqa: PLC0415  here alone

    server.ca_path.write_bytes(Authority("another").certificate)
    with (
        KatibReporter(sinks=["trainjob"], _runtime=clock.runtime) as reporter,
        pytest.raises(UnavailableError, match="not accepted") as caught,
    ):
        reporter.report({"loss": 1.0})

    assert caught.value.attempts == 10


def test_a_request_that_is_given_up_here_is_not_blamed_on_the_server(server, clock, monkeypatch, caplog):
    monkeypatch.setattr(board, "REQUEST_S", 3_600)
    server.behave("hang")
    with KatibReporter(sinks=["trainjob"], timeout_s=60, _runtime=Runtime(environ=clock.runtime.environ)) as reporter:
        reporter.report_progress(0.5)
        server.wait_for(lambda: server.begun == 1)
        reporter.report({"loss": 1.0})

    assert not [line for line in warnings(caplog) if f":{server.port}/" in line]  # others' threads may end meanwhile


# -- processes ---------------------------------------------------------------------------------------------------------


def test_a_sink_that_was_pickled_in_the_middle_goes_on(server):
    sink = TrainJobSink(resolve_status_server(runtime_with(**server.variables)))
    sink.progress(0.5, None, {})
    server.wait_for(lambda: server.percentages == [50])

    copied = pickle.loads(pickle.dumps(sink))  # noqa: S301  our own bytes

    assert copied.send("", [MetricLog("loss", 1.0, NOON)], deadline_s=120) == SinkOutcome(delivered=1, attempts=1)
    copied.close()
    sink.close()
    with pytest.raises(ReporterClosedError):
        pickle.loads(pickle.dumps(sink)).send("", [], deadline_s=120)  # noqa: S301  as above


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # of the server's threads
def test_a_forked_child_shows_its_own(server, reporter):
    reporter.report_progress(0.5, {"loss": 2.0})
    loop_until(lambda: not sending(), lambda: None)
    assert server.percentages == [50]

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            reporter.report({"accuracy": 0.5})
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert server.seen[-1].metrics == {"accuracy": "0.5"}
    reporter.report({"accuracy": 0.7})
    assert server.seen[-1].metrics == {"loss": "2", "accuracy": "0.7"}


# -- where it is on ----------------------------------------------------------------------------------------------------


def runtime_with(**variables):
    return Runtime(environ=lambda: variables)


def test_without_its_url_it_is_quiet_with_one_line(caplog):
    caplog.set_level(logging.INFO, "katib_callbacks")
    with KatibReporter(sinks=["trainjob"], _runtime=runtime_with(KATIB_TRIAL_NAME="trial")) as reporter:
        reporter.report_progress(0.5)
        receipts = [reporter.report({"loss": 1.0}) for _ in range(2)]

    reason = "KUBEFLOW_TRAINER_SERVER_URL is not set"
    assert {receipt.skipped for receipt in receipts} == {f"trainjob: {reason}"}
    assert receipts[0].sinks == {"trainjob": SinkOutcome(delivered=0, attempts=0, skipped=reason)}
    assert [record.getMessage() for record in caplog.records] == [f"The sink 'trainjob' gets nothing: {reason}."]


def test_without_its_url_the_others_go_on(katib_db_manager):
    with KatibReporter(sinks=["trainjob", "katib"]) as reporter:
        receipt = reporter.report({"loss": 1.0})

    assert receipt.delivered == 1
    assert set(receipt.sinks) == {"katib", "trainjob"}
    assert receipt.sinks["trainjob"].skipped == "KUBEFLOW_TRAINER_SERVER_URL is not set"


def test_in_a_trainjob_that_is_no_trial_katib_gets_nothing(server, clock):
    with KatibReporter(sinks=["katib", "trainjob"], _runtime=clock.runtime) as reporter:
        receipt = reporter.report({"loss": 1.0})

    assert receipt.sinks["katib"].skipped == "KATIB_TRIAL_NAME is not set"
    assert receipt.delivered == 1
    assert server.seen[-1].metrics == {"loss": "1"}


@pytest.mark.parametrize(
    ("has_trial", "has_job", "expected"),
    [
        (True, False, ("katib",)),
        (False, True, ("trainjob",)),
        (True, True, ("katib", "trainjob")),
        (False, False, ()),
    ],
)
def test_auto_takes_what_there_is(has_trial, has_job, expected):
    variables = {"KATIB_CALLBACKS_SINKS": "auto"}
    variables |= {"KATIB_TRIAL_NAME": "trial"} if has_trial else {}
    variables |= {"KUBEFLOW_TRAINER_SERVER_URL": "https://localhost/status"} if has_job else {}

    with KatibReporter(_runtime=runtime_with(**variables)) as reporter:
        assert reporter.whereabouts.sinks == expected
        assert (reporter.idle_reason is None) == (has_trial or has_job)


def test_without_a_setting_a_trainjob_shows_its_status(server):
    with KatibReporter(timeout_s=60, _runtime=runtime_with(**server.variables)) as reporter:
        receipt = reporter.report({"loss": 1.0})

    assert (receipt.delivered, list(receipt.sinks)) == (1, ["trainjob"])
    assert server.seen[-1].metrics == {"loss": "1"}


def test_without_a_setting_a_trial_that_is_a_trainjob_reports_to_both(server, katib_db_manager):
    variables = server.variables | {"KATIB_TRIAL_NAME": "test-trial"}
    with KatibReporter(katib_db_manager.address, timeout_s=60, _runtime=runtime_with(**variables)) as reporter:
        receipt = reporter.report({"loss": 1.0})
        assert {name: outcome.delivered for name, outcome in receipt.sinks.items()} == {"katib": 1, "trainjob": 1}

    assert katib_db_manager.latest() == {"loss": 1.0}
    assert server.seen[-1].metrics == {"loss": "1"}


def test_a_url_that_cannot_be_right_and_that_nobody_asked_for_breaks_no_training(katib_db_manager, caplog):
    runtime = runtime_with(KATIB_TRIAL_NAME="test-trial", KUBEFLOW_TRAINER_SERVER_URL="ftp://host/x")
    with KatibReporter(katib_db_manager.address, _runtime=runtime) as reporter:
        assert list(reporter.report({"loss": 1.0}).sinks) == ["katib"]

    (line,) = warnings(caplog)
    assert "The TrainJob's status will not be shown: KUBEFLOW_TRAINER_SERVER_URL must be a URL" in line


def test_auto_adds_nothing_twice():
    runtime = runtime_with(KATIB_TRIAL_NAME="trial", KUBEFLOW_TRAINER_SERVER_URL="https://localhost/status")

    with KatibReporter(sinks=["trainjob", "auto"], _runtime=runtime) as reporter:
        assert reporter.whereabouts.sinks == ("trainjob", "katib")


def test_outside_both_a_report_says_that_this_is_no_trial():
    with KatibReporter(sinks=["auto"], _runtime=runtime_with()) as reporter, pytest.raises(ConfigurationError):
        reporter.report({"loss": 1.0})


@pytest.mark.parametrize(
    "url", ["localhost:8080/status", "ftp://host/x", "https://user:pw@host/x", "https://host:0/x", "https://h/a b"]
)
def test_a_url_that_cannot_be_right_shows_before_the_training(url):
    with pytest.raises(ConfigurationError, match="KUBEFLOW_TRAINER_SERVER_URL must be a URL") as caught:
        KatibReporter(sinks=["trainjob"], _runtime=runtime_with(KUBEFLOW_TRAINER_SERVER_URL=url))

    assert "pw" not in str(caught.value)


def test_a_token_travels_in_the_clear_only_where_that_is_allowed(tmp_path):
    with StatusServer(tmp_path, is_tls=False) as server:
        variables = {name: value for name, value in server.variables.items() if "CA_CERT" not in name}
        with pytest.raises(ConfigurationError, match="would travel without TLS"):
            KatibReporter(sinks=["trainjob"], _runtime=runtime_with(**variables))
        allowed = runtime_with(**variables | {"KATIB_CALLBACKS_ALLOW_INSECURE_TOKEN": "1"})
        with KatibReporter(sinks=["trainjob"], _runtime=allowed) as reporter:
            assert reporter.report({"loss": 1.0}).delivered == 1


def test_off_rank_zero_nothing_is_shown(server, clock):
    runtime = runtime_with(**server.variables, RANK="1")
    with KatibReporter(sinks=["trainjob"], _runtime=runtime) as reporter:
        reporter.report_progress(0.5)
        receipt = reporter.report({"loss": 1.0})

    assert receipt.skipped is not None
    assert server.begun == 0
