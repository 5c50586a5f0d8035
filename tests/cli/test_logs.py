"""``katib-callbacks logs``: tables, JSON lines, and answers that do not come."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from beside import said
from servicers import DBManagerServicer

from katib_callbacks.cli import main
from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture
def report(katib_db_manager):
    def report(*rows, trial="test-trial"):
        logs = [
            MetricLog(name, value, NOON + timedelta(microseconds=index)) for index, (name, value) in enumerate(rows)
        ]
        with grpc.insecure_channel(katib_db_manager.address) as channel:
            DBManagerStub(channel).report(trial, logs, timeout_s=60)

    return report


def run_python(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240, **options
    )


def test_a_table_shows_the_rows_by_time(report, capsys):
    report(("loss", 0.5), ("accuracy", 0.9))
    assert main(["logs", "test-trial"]) == 0
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert rows == [
        ["2026-01-31T12:00:00.000000Z", "loss", "0.5"],
        ["2026-01-31T12:00:00.000001Z", "accuracy", "0.9"],
    ]
    assert err == ""


def test_without_rich_the_table_is_aligned_text(report):
    report(("loss", 0.5), ("accuracy", 0.9))
    done = run_python(
        "import sys; sys.modules['rich'] = None\n"
        "from katib_callbacks.cli import main; sys.exit(main(['logs', 'test-trial']))"
    )
    assert (done.returncode, said(done.stderr)) == (0, [])
    assert done.stdout == (
        "Time                         Metric    Value\n"
        "2026-01-31T12:00:00.000000Z  loss      0.5\n"
        "2026-01-31T12:00:00.000001Z  accuracy  0.9\n"
    )


def test_a_long_table_is_not_laid_out_by_rich(report, capsys):
    report(*[("loss", number) for number in range(1_001)])
    assert main(["logs", "test-trial"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2026-01-31T12:00:00.001000Z  loss    1000"


def test_names_in_a_table_are_neither_markup_nor_cut_nor_control_sequences(report, capsys):
    report(("[red]x[/red]", 1), ("\x1b[2J", 2), ("n" * 255, 3), ("zwei\nzeilen", 4))
    assert main(["logs", "test-trial"]) == 0
    out = capsys.readouterr().out
    for name in ("[red]x[/red]", r"\x1b[2J", "n" * 255, r"zwei\nzeilen"):
        assert f" {name} " in out
    assert "\x1b" not in out


def test_a_plot_draws_each_metric(report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    report(*[("loss", 1 / number) for number in range(1, 31)], ("[red]f1", 0.5))
    assert main(["logs", "test-trial", "--plot"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loss: 0.0333333 at last, least 0.0333333, greatest 1"
    assert lines[1].startswith("         1 ┤")
    assert lines[14].split() == ["1", "30"]
    assert lines[15] == "[red]f1: 0.5 at last, least 0.5, greatest 0.5"
    assert max(map(len, lines)) <= 60

    assert main(["logs", "test-trial", "--plot", "--metric", "[red]f1"]) == 0
    assert capsys.readouterr().out.startswith("[red]f1: 0.5")


def test_json_lines_have_name_value_and_timestamp(report, capsys):
    report(("löss", 0.1), ("accuracy", 1e-07))
    assert main(["logs", "test-trial", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"name": "löss", "value": "0.1", "timestamp": "2026-01-31T12:00:00.000000Z"},
        {"name": "accuracy", "value": "1e-07", "timestamp": "2026-01-31T12:00:00.000001Z"},
    ]
    assert err == ""


def test_a_metric_is_chosen_by_its_exact_name(report, capsys):
    report(("loss", 1), ("Loss", 2), ("val_loss", 3))
    assert main(["logs", "test-trial", "--metric", "loss", "--json"]) == 0
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == ["1"]


def test_another_trials_rows_are_not_shown(report, capsys):
    report(("loss", 1))
    report(("loss", 2), trial="other")
    assert main(["logs", "other", "--json"]) == 0
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == ["2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "no rows for trial 'test-trial'"), (["--metric", "f1"], "no rows of metric 'f1' for trial 'test-trial'")],
)
def test_an_empty_answer_is_said_on_stderr_and_is_no_failure(katib_db_manager, capsys, arguments, words):
    assert main(["logs", "test-trial", "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"the DB manager at {katib_db_manager.address} holds {words}\n"


def test_the_argument_wins_over_the_environment(katib_db_manager, report, monkeypatch, capsys):
    report(("loss", 1))
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    assert main(["logs", "test-trial", "--json", "--address", katib_db_manager.address]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "loss"


def test_replies_beyond_grpcs_four_mebibytes_are_shown(katib_db_manager, capsys):
    logs = messages.ObservationLog(
        metric_logs=[
            messages.MetricLog(time_stamp="2026-01-31T12:00:00Z", metric=messages.Metric(name="m", value="x" * 65_000))
            for _ in range(70)
        ]
    )
    with grpc.insecure_channel(katib_db_manager.address) as channel:
        channel.unary_unary("/api.v1.beta1.DBManager/ReportObservationLog")(
            messages.ReportObservationLogRequest(trial_name="big", observation_log=logs).SerializeToString()
        )
    assert main(["logs", "big", "--json"]) == 0
    assert [len(json.loads(line)["value"]) for line in capsys.readouterr().out.splitlines()] == [65_000] * 70


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", "localhost:katib", "localhost:0", "http://localhost:6789"]
)
@pytest.mark.parametrize("source", ["--address", "KATIB_DB_MANAGER_ADDRESS"])
def test_an_address_that_cannot_be_right_is_status_2_and_names_its_source(source, address, monkeypatch, capsys):
    arguments = ["logs", "t"]
    if source == "--address":
        arguments += ["--address", address]
    else:
        monkeypatch.setenv(source, address)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"katib-callbacks: error: {source} must be host:port")
    assert err.count("\n") == 1


@pytest.mark.parametrize("trial", ["", "x" * 256, "a\0b"])
def test_a_trial_name_that_cannot_be_is_status_2(trial, capsys):
    assert main(["logs", trial]) == 2
    assert "the trial's name" in capsys.readouterr().err


def test_tls_comes_from_the_reporters_variables(katib_db_manager, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KATIB_CALLBACKS_TLS_CA", str(tmp_path / "ca.pem"))
    assert main(["logs", "t"]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "ca.pem") in err
    assert err.count("\n") == 1


def test_a_row_that_cannot_be_read_is_one_line_and_status_1(capsys):
    class OddServer(DBManagerServicer):
        def GetObservationLog(self, request, context):  # noqa: N802  Katib's name
            log = messages.MetricLog(time_stamp="soon", metric=messages.Metric(name="loss", value="1"))
            return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=[log]))

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((OddServer().generic_handler(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        assert main(["logs", "t", "--address", address]) == 1
    finally:
        server.stop(None).wait()
    err = capsys.readouterr().err
    assert f"the DB manager at {address} sent a row that cannot be read: 'soon' is not an RFC 3339" in err
    assert err.count("\n") == 1


def test_a_closed_port_is_one_line_and_status_1(capsys, closed_port):
    address = f"127.0.0.1:{closed_port}"
    assert main(["logs", "t", "--address", address]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"katib-callbacks: error: no answer from a DB manager at {address}: ")
    assert err.count("\n") == 1


def test_an_unknown_host_is_one_line_and_status_1(capsys):
    assert main(["logs", "t", "--address", "no-such-host.invalid:6789"]) == 1
    err = capsys.readouterr().err
    assert "no answer from a DB manager at no-such-host.invalid:6789" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("metric", ["a\0b", "a\udcff"])
def test_a_metrics_name_that_cannot_be_asked_for_is_status_2(metric, capsys):
    assert main(["logs", "t", "--metric", metric]) == 2
    assert "--metric has a" in capsys.readouterr().err


def test_a_server_that_never_answers_is_given_up(capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["logs", "t", "--address", address, "--timeout", "0.3"]) == 1
    assert f"no answer from a DB manager at {address}" in capsys.readouterr().err


def test_a_wait_for_ever_is_possible(katib_db_manager, capsys):
    assert main(["logs", katib_db_manager.trial_name, "--json", "--timeout", "1e300"]) == 0
    assert "holds no rows" in capsys.readouterr().err


def test_a_refusal_is_one_line_with_its_reason(katib_db_manager, capsys):
    assert main(["logs", "t", "--metric", "x" * 256]) == 1
    err = capsys.readouterr().err
    assert "answered INVALID_ARGUMENT: metric_name has 256 characters" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_reader_that_has_seen_enough_ends_it_quietly(report, arguments):
    report(*[("loss", number) for number in range(5_000)])
    command = [sys.executable, "-m", "katib_callbacks.cli", "logs", "test-trial", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert said(process.stderr.read()) == []
        assert process.wait(timeout=60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_disk_that_is_full_is_one_line_and_status_1(report, arguments):
    report(("loss", 1))
    command = [sys.executable, "-m", "katib_callbacks.cli", "logs", "test-trial", *arguments]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert [line.startswith("katib-callbacks: error: ") for line in said(done.stderr)] == [True], done.stderr


@pytest.mark.skipif(os.name != "posix", reason="starts the command through a shell")
def test_a_stdout_that_is_closed_takes_nothing_and_breaks_nothing(report):
    report(("loss", 1))
    command = f'exec "{sys.executable}" -m katib_callbacks.cli logs test-trial --json >&-'
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False, timeout=240)
    assert (done.returncode, said(done.stderr.decode())) == (0, [])


def test_a_name_that_the_terminal_cannot_print_is_escaped(report, katib_db_manager):
    report(("löss", 1))
    done = subprocess.run(
        [sys.executable, "-m", "katib_callbacks.cli", "logs", "test-trial"],
        capture_output=True,
        check=False,
        timeout=240,
        env={"PYTHONIOENCODING": "ascii", "KATIB_DB_MANAGER_ADDRESS": katib_db_manager.address},
    )
    assert (done.returncode, said(done.stderr.decode())) == (0, [])
    assert rb"l\xf6ss" in done.stdout
