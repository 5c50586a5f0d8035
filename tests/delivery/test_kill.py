"""A trial that is killed at any moment of a delivery, hundreds of times: after a replay no row is lost or doubled."""

import random
import signal
import time
from collections import Counter

import pytest
from partners import DBManagerProcess, Trials, stub

from katib_callbacks.cli import main
from katib_callbacks.db_manager import DBManager

pytestmark = pytest.mark.long

ROWS_PER_PROCESS = 1_000


def numbers(address: str) -> list[int]:
    with stub(address) as calls:
        return [int(log.value) for log in calls.get("trial", timeout_s=60)]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_what_a_killed_trial_had_accepted_is_stored_once_after_a_replay(tmp_path, signal_number):
    spool = tmp_path / "spool"
    accepted, delivered = set[int](), set[int]()
    kills = 100
    lot = random.Random(signal_number)  # noqa: S311  repeatable
    with (
        DBManager(f"sqlite:///{tmp_path / 'katib.db'}", keep_duplicates=True) as server,
        Trials(server.address, "trial", spool, tmp_path) as trials,
    ):
        for index in range(kills):
            trial = trials.start(index * ROWS_PER_PROCESS)
            if index % 2:
                trial.wait_for("accepted", lot.randint(1, 4))
                time.sleep(lot.choice([0, lot.uniform(0, 0.01)]))
            else:
                time.sleep(lot.uniform(0, 0.05))
            was_accepted, was_delivered = trial.end(signal_number)
            accepted |= was_accepted
            delivered |= was_delivered
        before = numbers(server.address)
        left = list(spool.iterdir())
        main(["replay", str(spool), "--address", server.address])
        after = numbers(server.address)

    assert left  # otherwise nothing was killed in the middle
    assert delivered <= set(before)
    assert accepted <= set(after)
    assert {number: times for number, times in Counter(after).items() if times > 1} == {}
    assert [path for path in spool.iterdir() if not path.name.endswith(".tmp")] == []


def test_trials_killed_while_the_db_manager_is_down_lose_nothing(tmp_path):
    spool = tmp_path / "spool"
    accepted = set[int]()
    with (
        DBManagerProcess(tmp_path / "katib.db") as server,
        Trials(server.address, "trial", spool, tmp_path) as trials,
    ):
        server.kill()
        for index in range(10):
            trial = trials.start(index * ROWS_PER_PROCESS)
            trial.wait_for("accepted", 1)
            accepted |= trial.end(signal.SIGKILL)[0]
        server.start()

        assert main(["replay", str(spool), "--address", server.address]) == 0
        assert sorted(numbers(server.address)) == sorted(accepted) == [at * ROWS_PER_PROCESS for at in range(10)]
    assert list(spool.iterdir()) == []
