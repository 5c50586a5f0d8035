"""The pytest plugin, as those meet it who installed the package."""

import multiprocessing
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import grpc
import pytest

from katib_callbacks.metrics import MetricLog, StoredMetricLog
from katib_callbacks.testing import TrialDBManager
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def report(address, *logs, trial="test-trial"):
    with grpc.insecure_channel(address) as channel:
        DBManagerStub(channel).report(trial, logs, timeout_s=60)


def test_a_test_runs_as_a_trial_and_reads_back_what_was_stored(katib_db_manager):
    assert isinstance(katib_db_manager, TrialDBManager)
    program = (
        "import os, grpc; from datetime import datetime, timezone; from katib_callbacks.metrics import MetricLog\n"
        "from katib_callbacks.wire.client import DBManagerStub\n"
        "with grpc.insecure_channel(os.environ['KATIB_DB_MANAGER_ADDRESS']) as channel:\n"
        "    DBManagerStub(channel).report(os.environ['KATIB_TRIAL_NAME'], [MetricLog('accuracy', 0.9, "
        "datetime(2026, 1, 31, 12, tzinfo=timezone.utc))], timeout_s=60)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
    assert katib_db_manager.metrics() == [StoredMetricLog("accuracy", "0.9", NOON)]


def test_rows_are_chosen_by_trial_and_name(katib_db_manager):
    report(katib_db_manager.address, MetricLog("loss", 1, NOON), MetricLog("Loss", 2, NOON))
    report(katib_db_manager.address, MetricLog("loss", 3, NOON), trial="other")
    assert [log.value for log in katib_db_manager.metrics()] == ["1", "2"]
    assert [log.value for log in katib_db_manager.metrics(name="loss")] == ["1"]
    assert [log.value for log in katib_db_manager.metrics("other")] == ["3"]
    assert [log.value for log in katib_db_manager.metrics(trial="other", name="Loss")] == []


def test_long_histories_are_read_and_a_proxy_is_not_asked(katib_db_manager, monkeypatch):
    logs = [MetricLog("n" * 255, number, NOON + timedelta(microseconds=number)) for number in range(16_000)]
    report(katib_db_manager.address, *logs)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert len(katib_db_manager.metrics()) == 16_000


def test_latest_is_the_greatest_time_and_the_later_row_of_equal_ones(katib_db_manager):
    later = NOON + timedelta(microseconds=1)
    report(katib_db_manager.address, MetricLog("loss", 1, later), MetricLog("loss", 2, NOON), MetricLog("f1", 3, NOON))
    report(katib_db_manager.address, MetricLog("f1", 4, NOON))
    assert katib_db_manager.latest() == {"loss": 1.0, "f1": 4.0}
    assert katib_db_manager.latest("other") == {}


def test_each_test_has_a_server_of_its_own_and_its_environment_ends_with_it(pytester):
    pytester.makepyfile(
        """
        import os
        import grpc, pytest
        from katib_callbacks.wire.client import DBManagerStub

        seen = []

        @pytest.mark.parametrize("number", range(2))
        def test_a_trial(katib_db_manager, tmp_path, number):
            assert os.environ["KATIB_TRIAL_NAME"] == katib_db_manager.trial_name == "test-trial"
            assert os.environ["KATIB_DB_MANAGER_ADDRESS"] == katib_db_manager.address
            assert (tmp_path / "katib.db").exists()
            assert katib_db_manager.metrics() == []
            seen.append(katib_db_manager.address)

        def test_no_trial():
            assert len(seen) == 2
            assert not {"KATIB_TRIAL_NAME", "KATIB_DB_MANAGER_ADDRESS"} & set(os.environ)
            with grpc.insecure_channel(seen[-1]) as channel, pytest.raises(grpc.RpcError, match="refused"):
                DBManagerStub(channel).is_serving(timeout_s=60)
        """
    )
    pytester.runpytest_inprocess("-p", "no:randomly", "-W", "error").assert_outcomes(passed=3)


def test_the_shell_does_not_reach_a_test_that_asks_for_it_and_the_test_itself_does(pytester, monkeypatch):
    shell = {
        "KATIB_CALLBACKS_DISABLE": "1",
        "KATIB_CALLBACKS_SINKS": "stdout",
        "KATIB_TRIAL_NAME": "of-the-shell",
        "RANK": "3",
        "OMPI_COMM_WORLD_RANK": "1",
        "PET_NODE_RANK": "2",
        "KUBEFLOW_TRAINER_SERVER_URL": "https://server",
    }
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(
        """
        import os
        from katib_callbacks import KatibReporter
        from katib_callbacks.testing import FakeReporter
        import pytest

        @pytest.fixture
        def metrics_of_the_test(monkeypatch):
            monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "loss")

        def test_a_report(metrics_of_the_test, katib_db_manager):
            with KatibReporter() as reporter:
                assert reporter.report({"loss": 1}).delivered == 1
            assert katib_db_manager.latest() == {"loss": 1}
            ours = {name for name in os.environ if name.startswith(("KATIB_", "RANK", "OMPI_", "PET_", "KUBEFLOW_"))}
            assert ours == {"KATIB_TRIAL_NAME", "KATIB_DB_MANAGER_ADDRESS", "KATIB_CALLBACKS_METRICS"}

        def test_afterwards():
            assert os.environ["RANK"] == "3"
        """
    )
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_the_fixture_is_listed_with_what_it_does(pytester):
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["katib_db_manager -- *", "*Run the test as a trial*"])


def test_a_run_that_does_not_ask_for_it_loads_nothing_for_it(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_what_is_loaded():
            assert "katib_callbacks.testing" in sys.modules
            for name in ("grpc", "google.protobuf", "sqlalchemy", "katib_callbacks.reporting"):
                assert name not in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_without_sqlalchemy_only_the_tests_that_ask_for_it_fail_and_name_the_extra(pytester):
    pytester.makeconftest("import sys; sys.modules['sqlalchemy'] = None")
    pytester.makepyfile("def test_a_trial(katib_db_manager): pass\ndef test_another(): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(['*MissingDependencyError*pip install "katib-callbacks[[]db-manager[]]"*'])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of every fork beside threads
def test_code_under_test_may_fork_as_data_loaders_do(katib_db_manager):
    report(katib_db_manager.address, MetricLog("loss", 1, NOON))
    assert len(katib_db_manager.metrics()) == 1
    worker = multiprocessing.get_context("fork").Process(target=sum, args=([1, 2],))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    report(katib_db_manager.address, MetricLog("loss", 2, NOON))
    assert [log.value for log in katib_db_manager.metrics()] == ["1", "2"]
