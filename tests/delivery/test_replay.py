"""``katib-callbacks replay`` delivers what lies in a spool, each row once, and leaves what still fails."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from partners import LOST_REPLY, NOON, TRUNCATED, Fault, ScriptedDBManager, hostile_files, stub

from katib_callbacks import MetricLog
from katib_callbacks.cli import main
from katib_callbacks.sinks.katib import settling
from katib_callbacks.sinks.katib import spool as spool_files

HOSTILE = hostile_files("trial")
DOWN = Fault("UNAVAILABLE", "failed to connect to all addresses")


@pytest.fixture
def server():
    with ScriptedDBManager() as server:
        yield server


@pytest.fixture(autouse=True)
def _late_commits_are_waited_for_briefly(monkeypatch):
    """A commit that may be under way is waited for a tenth as long as by users; in processes as long."""
    monkeypatch.setattr(settling, "SHORTEST_PATIENCE_S", 0.2)
    monkeypatch.setattr(settling, "ABSENCE_S", 0.1)


@pytest.fixture
def spool(tmp_path) -> Path:
    return tmp_path / "spool"


def lay(spool: Path, trial: str, *values: float, hour: int = 12) -> tuple[Path, list[MetricLog]]:
    logs = [
        MetricLog("loss", value, NOON.replace(hour=hour, microsecond=number)) for number, value in enumerate(values)
    ]
    file = spool_files.write(spool, trial, logs)
    file.release()
    return file.path, logs


def replay(server, spool: Path, *arguments: str) -> int:
    return main(["replay", str(spool), "--address", server.address, "--timeout", "20", *arguments])


def test_what_lies_in_the_spool_is_delivered_in_order_and_deleted(server, spool, capsys):
    lay(spool, "trial", 3, 4, hour=14)
    lay(spool, "trial", 1, 2)
    lay(spool, "other", 5)

    assert replay(server, spool) == 0

    assert [value for _, _, value, _ in server.rows if value != "5"] == ["1", "2", "3", "4"]
    assert server.values("other") == [("loss", "5")]
    assert list(spool.iterdir()) == []
    out, err = capsys.readouterr()
    assert "5 rows of 3 files are stored" in out
    assert err == ""


def test_rows_that_were_stored_already_are_not_sent(server, spool):
    _, logs = lay(spool, "trial", 1, 2)
    with stub(server.address) as calls:
        calls.report("trial", logs, timeout_s=60)

    assert replay(server, spool) == 0

    assert server.calls.count("report") == 1
    assert server.values() == [("loss", "1"), ("loss", "2")]
    assert list(spool.iterdir()) == []


def test_a_delivery_that_ended_in_the_middle_goes_on_there(server, spool):
    _, logs = lay(spool, "trial", *range(7_500))
    with stub(server.address) as calls:
        for start in range(0, 5_000, 1_000):
            calls.report("trial", logs[start : start + 1_000], timeout_s=60)

    assert replay(server, spool) == 0

    assert server.batch_sizes == [1_000] * 7 + [500]
    assert [int(value) for _, value in server.values()] == list(range(7_500))


def test_batches_that_were_stored_already_cost_few_questions(server, spool):
    _, logs = lay(spool, "trial", *range(8_000))
    with stub(server.address) as calls:
        for start in range(0, 8_000, 1_000):
            calls.report("trial", logs[start : start + 1_000], timeout_s=60)

    assert replay(server, spool) == 0

    assert server.calls.count("get") == 3
    assert server.calls.count("report") == 8


def test_truncated_answers_do_not_make_a_replay_send_again(server, spool):
    _, logs = lay(spool, "trial", *range(3_000))
    with stub(server.address) as calls:
        for start in range(0, 2_000, 1_000):
            calls.report("trial", logs[start : start + 1_000], timeout_s=60)
    server.get_faults = [TRUNCATED, TRUNCATED]

    assert replay(server, spool) == 0

    assert sorted(int(value) for _, value in server.values()) == list(range(3_000))


def test_a_reply_lost_in_a_replay_is_settled(server, spool):
    lay(spool, "trial", 1)
    server.report_faults = [LOST_REPLY]

    assert replay(server, spool) == 0

    assert server.values() == [("loss", "1")]


def test_what_is_refused_stays_with_its_reason_and_the_rest_is_delivered(server, spool, capsys):
    refused, _ = lay(spool, "bad", 1)
    lay(spool, "good", 2, hour=13)
    server.report_faults = [Fault("INVALID_ARGUMENT", "the third metric is at fault")]

    assert replay(server, spool) == 1

    assert list(spool.iterdir()) == [refused]
    assert server.values("good") == [("loss", "2")]
    out = capsys.readouterr().out
    assert f"left: {refused}: " in out
    assert "the third metric is at fault" in out


def test_a_db_manager_that_is_down_ends_the_replay_and_everything_stays(spool, capsys):
    paths = [lay(spool, f"trial-{number}", number)[0] for number in range(3)]
    with ScriptedDBManager() as server:
        address = server.address

    assert main(["replay", str(spool), "--address", address, "--timeout", "0.5"]) == 1

    assert sorted(spool.iterdir()) == sorted(paths)
    out = capsys.readouterr().out
    assert out.count("not tried") == 2
    assert "3 files are left" in out


def test_files_that_are_damaged_or_foreign_are_left(server, spool, capsys):
    lay(spool, "trial", 1)
    damaged = spool / f"damaged{spool_files.SUFFIX}"
    damaged.write_text("?")
    unfinished = spool / f"unfinished{spool_files.TEMPORARY_SUFFIX}"
    unfinished.write_text('{"format"')
    foreign = spool / "notes.txt"
    foreign.write_text("not ours")
    fifo = spool / f"fifo{spool_files.SUFFIX}"
    os.mkfifo(fifo)  # to open it would wait for ever

    assert replay(server, spool) == 1

    assert set(spool.iterdir()) == {spool / f"damaged{spool_files.DAMAGED_SUFFIX}", unfinished, foreign, fifo}
    assert server.values() == [("loss", "1")]
    out = capsys.readouterr().out
    assert f"{damaged} is damaged" in out
    assert f"{unfinished} is incomplete" in out
    assert "notes.txt" not in out


@pytest.mark.parametrize("kind", sorted(HOSTILE.keys() - {"a row at the end of time"}))  # which stops later rows alone
def test_a_hostile_file_is_set_aside_once_and_the_others_are_delivered(server, spool, capsys, caplog, kind):
    lay(spool, "trial", 1)
    lay(spool, "other", 2)
    path = spool / f"trial-0{spool_files.SUFFIX}"
    path.write_bytes(HOSTILE[kind])

    assert replay(server, spool) == 1

    assert {(trial, value) for trial, _, value, _ in server.rows} == {("trial", "1"), ("other", "2")}
    aside = spool / f"trial-0{spool_files.DAMAGED_SUFFIX}"
    assert list(spool.iterdir()) == [aside]
    assert f"left: {path} is damaged" in capsys.readouterr().out
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"set aside as {aside}" in record.message
    assert replay(server, spool) == 0


def test_a_file_that_breaks_the_db_manager_each_time_does_not_keep_the_others_from_it(
    server, spool, capsys, monkeypatch
):
    monkeypatch.undo()  # its whole patience takes the bad file's time
    lay(spool, "bad", 1)
    lay(spool, "good", 2, hour=13)
    server.report_faults = [Fault("UNAVAILABLE", "Socket closed")]

    assert replay(server, spool, "--timeout", "3.5") == 1

    assert server.values("good") == [("loss", "2")]
    assert "may not have reached" in capsys.readouterr().out


def test_a_temporary_file_that_was_written_to_its_end_is_delivered(server, spool):
    path, _ = lay(spool, "trial", 1)
    path.rename(path.with_name(path.name + ".tmp"))

    assert replay(server, spool) == 0

    assert server.values() == [("loss", "1")]
    assert list(spool.iterdir()) == []


def test_a_file_that_is_being_delivered_is_passed_over(server, spool, capsys):
    file = spool_files.write(spool, "trial", [MetricLog("loss", 1, NOON)])

    assert replay(server, spool) == 0

    assert server.calls == []
    assert file.path.exists()
    assert "1 are being delivered" in capsys.readouterr().out
    file.release()


def test_two_replays_at_once_deliver_each_row_once(server, spool):
    for number in range(20):
        lay(spool, f"trial-{number}", number)
    command = [sys.executable, "-m", "katib_callbacks.cli", "replay", str(spool), "--address", server.address]

    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [process.wait(120) for process in processes] == [0, 0]
    assert sorted(int(value) for _, _, value, _ in server.rows) == list(range(20))
    assert list(spool.iterdir()) == []


@pytest.mark.long
def test_replays_killed_at_any_moment_lose_and_double_nothing(server, spool):
    lot = random.Random(7)  # noqa: S311  repeatable
    for number in range(60):
        lay(spool, f"trial-{number}", *range(number * 100, number * 100 + lot.choice([1, 2, 50])))
    rows = sum(len(_spool_rows(path)) for path in spool.iterdir())
    command = [sys.executable, "-m", "katib_callbacks.cli", "replay", str(spool), "--address", server.address]
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(server.calls)
        while len(server.calls) < before + lot.randint(3, 30) and process.poll() is None:
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()

    assert kills
    assert replay(server, spool) == 0
    stored = [(trial, value) for trial, _, value, _ in server.rows]
    assert len(set(stored)) == len(stored) == rows
    assert list(spool.iterdir()) == []


def _spool_rows(path: Path) -> list[MetricLog]:
    file = spool_files.hold(path)
    rows = file.read().logs
    file.release()
    return rows


def test_an_empty_directory_is_nothing_to_do(server, tmp_path, capsys):
    assert replay(server, tmp_path) == 0
    assert "0 rows of 0 files" in capsys.readouterr().out


def test_a_directory_that_is_not_there_is_named(server, tmp_path, capsys):
    assert replay(server, tmp_path / "nowhere") == 1
    assert "nowhere cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--address", "nowhere"), ("--timeout", "0")])
def test_a_bad_option_is_named(spool, capsys, option, value):
    assert main(["replay", str(spool), option, value]) == 2
    assert option in capsys.readouterr().err
