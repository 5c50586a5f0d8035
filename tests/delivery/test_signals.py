"""Reports in signal handlers, which interrupt whatever their thread is doing: they return or raise, and never hang."""

import signal
import subprocess
import sys

import pytest
from partners import ScriptedDBManager

PROGRAM = """
import faulthandler, random, signal, sys
from katib_callbacks import DeliveryError, KatibReporter
faulthandler.dump_traceback_later(100, exit=True)

class Keep:
    def send(self, trial_name, logs, *, deadline_s):
        from katib_callbacks import SinkOutcome
        return SinkOutcome(len(logs), 1)
    def close(self):
        pass

address, spool, signals = sys.argv[1], sys.argv[2], int(sys.argv[3])
reporter = KatibReporter(
    address, trial_name="trial", timeout_s=60, sinks=["katib", Keep()], spool_dir=spool, previous_attempt="clear"
)
lot = random.Random(1)
delivered, refused = [], []

def handle(*_):
    try:
        delivered.append(reporter.report({"handler": 1}))
    except DeliveryError as error:
        assert "interrupts another one of the same thread" in str(error), error
        assert "handler=1" in str(error), error
        refused.append(error)

signal.signal(signal.SIGALRM, handle)
while len(delivered + refused) < signals:
    signal.setitimer(signal.ITIMER_REAL, lot.uniform(0.00001, 0.004))
    delivered.append(reporter.report({"main": 1}))
signal.setitimer(signal.ITIMER_REAL, 0)
reporter.close()
print(len(delivered), len(refused))
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timers here")
def test_a_report_that_interrupts_a_report_of_its_thread_returns_or_raises(tmp_path):
    with ScriptedDBManager() as server:
        command = [sys.executable, "-c", PROGRAM, server.address, tmp_path, "300"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        delivered, refused = map(int, done.stdout.split())

        assert refused > 0
        assert len(server.rows) == delivered
        assert len({row[3] for row in server.rows}) == delivered
    assert list(tmp_path.iterdir()) == []


CLOSING_PROGRAM = """
import faulthandler, random, signal
from katib_callbacks import KatibReporter, ReporterClosedError, SinkOutcome
faulthandler.dump_traceback_later(60, exit=True)

class Keep:
    def send(self, trial_name, logs, *, deadline_s):
        return SinkOutcome(len(logs), 1)
    def close(self):
        pass

class Other(Keep):
    pass

lot, closed = random.Random(1), 0
signal.signal(signal.SIGALRM, lambda *_: reporter.close())
while closed < 1000:
    reporter = KatibReporter(trial_name="trial", sinks=[Keep(), Other()])
    signal.setitimer(signal.ITIMER_REAL, lot.uniform(0.00005, 0.001))
    try:
        while True:
            reporter.report({"loss": 1})
    except ReporterClosedError:
        closed += 1
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timers here")
def test_a_signal_handler_may_close_the_reporter_that_its_thread_reports_by():
    done = subprocess.run([sys.executable, "-c", CLOSING_PROGRAM], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
