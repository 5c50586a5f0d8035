"""Ranks that are killed, and a rank zero that is kept waiting by the DB manager."""

import os
import signal
import time

import pytest

FOREVER = "1000000"


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("launcher", ["lightning", "torchrun", "jax"])
def test_nothing_is_reported_and_nobody_hangs_if_a_rank_is_killed_in_mid_training(trial, launcher, victim, free_port):
    if launcher == "lightning":  # rank zero is the process that was started, and rank one its child
        trial.start("lightning_trial.py", "--strategy", "ddp", "--epochs", FOREVER)
    elif launcher == "torchrun":
        trial.torchrun("torch_loop.py", "--steps", FOREVER)
    else:
        job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port}", "JAX_NUM_PROCESSES": "2", "KERAS_BACKEND": "jax"}
        options = ("--rank-from", "JAX_PROCESS_ID", "--join-jax", "--epochs", FOREVER)
        for rank in ("0", "1"):
            trial.start("keras_trial.py", *options, name=f"jax-{rank}", JAX_PROCESS_ID=rank, **job)
    trial.until(lambda: trial.beacon(0) and trial.beacon(1), "both ranks to train", watch=True)
    os.kill(trial.beacon(victim), signal.SIGKILL)

    assert all(trial.statuses())  # when all are gone, none of them with success
    assert trial.rows() == []
    assert trial.door.visitors == []


def test_rank_zero_waits_for_the_db_manager_while_the_others_go_on_to_test(trial, block_s):
    trial.door.hold()
    trial.torchrun("lightning_trial.py", "--strategy", "ddp", "--test")
    trial.until(lambda: trial.door.visitors, "rank zero to deliver", watch=True)
    trial.until((trial.folder / "trained-1").exists, "rank one to come out of fit", watch=True)
    time.sleep(block_s)
    assert trial.rows() == []
    assert not (trial.folder / "trained-0").exists()
    trial.door.open()
    trial.wait()

    assert trial.rows() == [("accuracy", 1.5), ("loss", 2.5), ("gathered", 3.0), ("tested", 0.5)]
    trial.assert_rank_zero_alone_reported()


def test_other_ranks_may_end_while_rank_zero_waits_for_the_db_manager(trial):
    trial.door.hold()
    trial.torchrun("torch_loop.py")
    trial.until(lambda: trial.door.visitors, "rank zero to deliver", watch=True)
    trial.until(lambda: list(trial.folder.glob("testimony-*")), "rank one to come to its end", watch=True)
    assert list(trial.testimonies()) == [1]
    trial.door.open()
    trial.wait()

    assert trial.rows() == [("weight", 0.46875), ("again", 0.46875)]
    trial.assert_rank_zero_alone_reported()
