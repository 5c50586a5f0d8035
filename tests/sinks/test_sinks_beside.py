"""Sinks after the first: whatever becomes of their destination, a report is what it is without them."""

import json
import os
import pickle
import subprocess
import sys
import threading

import pytest
from beside import said
from http_partners import answer, drip, hang, reset, slowly, wait_until

from katib_callbacks import ConfigurationError, DeliveryError, KatibReporter, SinkOutcome
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting import background
from katib_callbacks.reporting.ranks import framework_rank


class Store:
    """A sink of one's own; ``before`` runs before it keeps the rows."""

    def __init__(self, before=lambda: None):
        self.rows = []
        self.closed = 0
        self.before = before

    def send(self, trial_name, logs, *, deadline_s):
        self.before()
        self.rows += [log.name for log in logs]
        return SinkOutcome(len(logs), 1)

    def close(self):
        self.closed += 1


def our_lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# -- destinations that fail ----------------------------------------------------------------------------------------


@pytest.fixture
def failing(request, partner, tmp_path, monkeypatch):
    """Return the name of a sink whose destination fails in some way, and what its outcome says."""
    if request.param == "file":
        (tmp_path / "file").touch()
        return f"file://{tmp_path}/file/rows.jsonl", "cannot be written"
    pytest.importorskip("prometheus_client", reason="`sinks` has it")
    if request.param == "down":
        port = request.getfixturevalue("closed_port")
        return f"prometheus+http://user:s3cret@127.0.0.1:{port}", "Connection refused"
    behaviour, error = {
        "slow": (slowly(0.3, answer(200)), None),
        "hanging": (hang, "still sending"),
        "dripping": (drip, "still sending"),
        "rejecting": (answer(400, "no"), "answered 400 no"),
        "resetting": (reset, "Error"),
    }[request.param]
    partner.behave = behaviour
    if error == "still sending":
        monkeypatch.setattr(background, "GRACE_S", 2.0)
    return f"prometheus+{partner.origin.replace('//', '//user:s3cret@')}", error


FAILURES = ["file", "down", "slow", "hanging", "dripping", "rejecting", "resetting"]


@pytest.mark.parametrize("failing", FAILURES, indirect=True)
def test_the_first_sinks_result_is_unchanged_and_one_line_says_which_fails(
    failing, katib_db_manager, partner, caplog, tmp_path
):
    name, error = failing
    store = Store()
    sinks = ["katib", name, store, f"file://{tmp_path}/beside.jsonl"]
    with KatibReporter(sinks=sinks) as reporter:
        first = reporter.report({"loss": 1})
        again = [reporter.report({f"metric_{number}": 2}) for number in range(3)]

    assert (first.delivered, first.dropped, first.spooled, first.attempts) == (1, 0, 0, 1)
    assert all((receipt.delivered, receipt.attempts) == (1, 1) for receipt in again)
    assert len(katib_db_manager.metrics()) == 4
    (label,) = (each for each in first.sinks if each not in {"katib", "Store", sinks[3]})
    assert "s3cret" not in label
    outcome = first.sinks[label]
    assert (error in (outcome.error or "")) if error else outcome == SinkOutcome(1, 1)
    assert [receipt.sinks["Store"].delivered for receipt in (first, *again)] == [1] * 4
    assert [receipt.sinks[sinks[3]].delivered for receipt in (first, *again)] == [1] * 4
    assert store.rows == ["loss", "metric_0", "metric_1", "metric_2"]
    wait_until(lambda: error is None or our_lines(caplog), "nothing says which sink fails")
    partner.is_over.set()
    wait_for_couriers()
    lines = our_lines(caplog)
    assert len(lines) == (1 if error else 0), lines
    assert all(label in line and "the report does not depend on it" in line for line in lines)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("failing", ["file", "down", "rejecting", "resetting"], indirect=True)
def test_alone_it_fails_the_report_and_the_error_has_the_rows(failing):
    name, error = failing

    reporter = KatibReporter(trial_name="trial", sinks=[name], timeout_s=60)
    with reporter, pytest.raises(DeliveryError, match=error) as caught:
        reporter.report({"loss": 1.5})

    assert "loss=1.5" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def wait_for_couriers():
    def is_over():
        return not [thread for thread in threading.enumerate() if thread.name.endswith("-watcher")]

    wait_until(is_over, "threads go on")


# -- sinks of one's own --------------------------------------------------------------------------------------------


def test_a_report_does_not_wait_for_a_sink_and_its_receipt_does(katib_db_manager):
    is_released = threading.Event()
    store = Store(lambda: is_released.wait(60))
    with KatibReporter(sinks=["katib", store]) as reporter:
        receipt = reporter.report({"loss": 1})
        assert store.rows == []
        assert len(katib_db_manager.metrics()) == 1
        threading.Timer(0.2, is_released.set).start()
        assert receipt.sinks["Store"] == SinkOutcome(1, 1)

    assert receipt.sinks == {"katib": SinkOutcome(1, 1), "Store": SinkOutcome(1, 1)}
    assert pickle.loads(pickle.dumps(receipt)) == receipt  # noqa: S301  our own
    assert repr(receipt.sinks) == repr(dict(receipt.sinks))


def test_reports_reach_a_slow_sink_in_their_order_and_before_it_is_closed(katib_db_manager, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    with KatibReporter(sinks=["katib", f"file://{path}"]) as reporter:
        for number in range(100):
            receipt = reporter.report({f"metric {number}": number})
    assert receipt.sinks[f"file://{path}"].delivered == 1

    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == [f"metric {i}" for i in range(100)]


def test_only_so_many_reports_wait_for_a_sink(katib_db_manager, monkeypatch):
    monkeypatch.setattr(background, "MAX_WAITING_REPORTS", 2)
    is_released, has_begun = threading.Event(), threading.Event()

    def wait():
        has_begun.set()
        is_released.wait(60)

    store = Store(wait)
    with KatibReporter(sinks=["katib", store]) as reporter:
        receipts = [reporter.report({"metric 0": 0})]
        assert has_begun.wait(60)
        receipts += [reporter.report({f"metric {number}": 0}) for number in range(1, 5)]
        is_released.set()
        outcomes = [receipt.sinks["Store"] for receipt in receipts]
    wait_for_couriers()

    assert [outcome.delivered for outcome in outcomes] == [1, 1, 1, 0, 0]
    assert outcomes[-1].error == "2 earlier reports still wait for it"
    assert store.rows == ["metric 0", "metric 1", "metric 2"]


def test_one_line_until_it_has_worked_again(katib_db_manager, caplog):
    problems = iter([ValueError("one"), ValueError("two"), None, ValueError("three")])

    def fail():
        problem = next(problems)
        if problem is not None:
            raise problem

    with KatibReporter(sinks=["katib", Store(fail)]) as reporter:
        errors = [reporter.report({"loss": 1}).sinks["Store"].error for _ in range(4)]

    assert errors == ["ValueError: one", "ValueError: two", None, "ValueError: three"]
    assert [line.rpartition(" ")[2] for line in our_lines(caplog)] == ["one", "three"]


def test_a_first_sink_that_fails_takes_nothing_from_the_others(tmp_path, closed_port):
    path = tmp_path / "rows.jsonl"
    address = f"127.0.0.1:{closed_port}"
    reporter = KatibReporter(address, trial_name="trial", timeout_s=0.3, sinks=["katib", f"file://{path}"])
    with reporter, pytest.raises(DeliveryError):
        reporter.report({"loss": 1})
    wait_for_couriers()

    assert json.loads(path.read_text())["name"] == "loss"


def test_rows_lie_in_the_spool_for_katib_alone(tmp_path, closed_port):
    path = tmp_path / "rows.jsonl"
    options = {"trial_name": "trial", "timeout_s": 0.3, "spool_dir": tmp_path / "spool"}
    reporter = KatibReporter(f"127.0.0.1:{closed_port}", sinks=["katib", f"file://{path}"], **options)
    with reporter, pytest.raises(DeliveryError, match="The rows are in"):
        reporter.report({"loss": 1})
    wait_for_couriers()

    assert len(list((tmp_path / "spool").iterdir())) == 1
    assert json.loads(path.read_text())["name"] == "loss"
    with pytest.raises(ConfigurationError, match="has to be the first"):
        KatibReporter(sinks=[f"file://{path}", "katib"], **options)


def test_urls_that_differ_in_a_secret_have_names_of_their_own(katib_db_manager, closed_port):
    pytest.importorskip("prometheus_client", reason="`sinks` has it")
    port = closed_port
    sinks = ["katib", *(f"prometheus+http://user:{word}@127.0.0.1:{port}" for word in ("one-secret", "another"))]
    with KatibReporter(sinks=sinks) as reporter:
        receipt = reporter.report({"loss": 1})
        label = f"prometheus+http://***@127.0.0.1:{port}"
        assert list(receipt.sinks) == ["katib", label, f"{label} 2"]
        assert "secret" not in repr(reporter)
    wait_for_couriers()


def test_each_training_of_a_callback_reaches_all_sinks(katib_db_manager, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", f"katib,file://{path}")
    recorder = MetricRecorder("loss")
    for value in (0.5, 0.25):
        recorder.start(framework_rank(is_global_zero=True))
        recorder.record({"loss": value}, row=0)
        recorder.finish()
        recorder.deliver()
        assert recorder.receipt.sinks[f"file://{path}"].delivered == 1

    assert [json.loads(line)["value"] for line in path.read_text().splitlines()] == [0.5, 0.25]
    assert [log.value for log in katib_db_manager.metrics()] == ["0.5", "0.25"]


# -- other processes -----------------------------------------------------------------------------------------------


def run(code, *arguments):
    program = "import os, sys, time\nfrom katib_callbacks import KatibReporter, SinkOutcome\n"
    program += "from katib_callbacks.reporting import background\n" + code
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


PROCESS = """
class Slow:
    def send(self, trial_name, logs, *, deadline_s):
        time.sleep({seconds})
        open(sys.argv[1], "a").write("kept")
        return SinkOutcome(len(logs), 1)
    def close(self):
        pass

background.GRACE_S = {grace_s}

def report():
    with KatibReporter(sinks=["katib", Slow()]) as reporter:
        reporter.report({{"loss": 1}})
"""


@pytest.mark.parametrize(
    "where", ["report()", "from multiprocessing import Process as P; p = P(target=report); p.start(); p.join()"]
)
def test_the_end_of_a_process_waits_for_a_slow_sink(katib_db_manager, tmp_path, where):
    done = run(PROCESS.format(seconds=0.5, grace_s=60) + where, tmp_path / "seen")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "kept"
    assert len(katib_db_manager.metrics()) == 1


def test_the_end_of_a_process_does_not_wait_for_one_that_hangs(katib_db_manager, tmp_path):
    done = run(PROCESS.format(seconds=3_600, grace_s="2.0") + "report()", tmp_path / "seen")

    assert done.returncode == 0, done.stderr
    assert len(katib_db_manager.metrics()) == 1
    assert len(said(done.stderr)) == 1, done.stderr
    assert said(done.stderr)[0] == (
        "The sink 'Slow' is late; the report does not depend on it: it has not answered for 2 s, and the "
        "end of the process will not wait"
    )


def test_a_fork_reports_to_all_sinks_again(katib_db_manager, tmp_path):
    code = """
background.GRACE_S = 60
reporter = KatibReporter(sinks=["katib", "file://" + sys.argv[1]])
receipt = reporter.report({"parent": 1})
assert receipt.sinks["file://" + sys.argv[1]].delivered == 1
child = os.fork()
if child == 0:
    receipt = reporter.report({"child": 1})
    assert receipt.sinks["file://" + sys.argv[1]].delivered == 1, receipt
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    done = run(code, tmp_path / "rows.jsonl")

    assert done.returncode == 0, done.stderr
    names = [json.loads(line)["name"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert names == [log.name for log in katib_db_manager.metrics()] == ["parent", "child"]


def test_a_reporter_that_was_sent_to_another_process_makes_its_sinks_there(katib_db_manager, tmp_path):
    path = tmp_path / "rows.jsonl"
    reporter = pickle.loads(pickle.dumps(KatibReporter(sinks=["katib", f"file://{path}"])))  # noqa: S301  our own
    receipt = reporter.report({"loss": 1})
    assert receipt.sinks[f"file://{path}"].delivered == 1
    reporter.close()

    assert json.loads(path.read_text())["name"] == "loss"
    assert os.getpid() == reporter._destinations._pid


def test_a_sink_that_cannot_be_made_there_fails_no_report(katib_db_manager, tmp_path, caplog):
    folder = tmp_path / "rows.jsonl"
    reporter = KatibReporter(sinks=["katib", f"file://{folder}"])
    state = pickle.dumps(reporter)
    folder.mkdir()  # where the name can no longer be right

    with pickle.loads(state) as moved:  # noqa: S301  our own
        receipt = moved.report({"loss": 1})
        assert receipt.delivered == 1
        assert "that is a folder" in receipt.sinks[f"file://{folder}"].error
    assert len(our_lines(caplog)) == 1
