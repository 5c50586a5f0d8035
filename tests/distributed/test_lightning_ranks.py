"""Lightning: each way to start two processes, with metrics that are computed across them."""

import re

import pytest
from status_server import StatusServer

FINAL = [("accuracy", 1.5), ("loss", 2.5), ("gathered", 3.0)]
"""Of the last of two epochs; means of both ranks."""


def test_ddp_reports_from_rank_zero_alone(trial):
    trial.start("lightning_trial.py", "--strategy", "ddp", "--report", "history", "--test")
    trial.wait()

    assert sorted(trial.rows()) == [
        *[("accuracy", 0.5), ("accuracy", 1.5), ("gathered", 3.0), ("gathered", 3.0)],
        *[("loss", 1.5), ("loss", 2.5), ("tested", 0.5)],
    ]
    trial.assert_rank_zero_alone_reported()


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_a_child_that_inherits_rank_0_does_not_report_for_it(trial, strategy):
    trial.start("lightning_trial.py", "--strategy", strategy, RANK="0")
    trial.wait()

    assert trial.rows() == FINAL
    trial.assert_rank_zero_alone_reported()
    assert trial.testimonies()[1]["said"] == []  # nothing of the environment silenced it


def test_single_device_trainers_that_all_call_themselves_rank_zero(trial):
    # Two pods of a PyTorchJob whose script knows nothing of the other pod.
    pods = [
        trial.start("lightning_trial.py", "--devices", "1", name=f"pod-{rank}", RANK=str(rank), WORLD_SIZE="2")
        for rank in (0, 1)
    ]
    trial.wait()

    assert trial.rows() == [("accuracy", 1.25), ("loss", 2.0), ("gathered", 1.0)]
    assert "This process is rank 1 (RANK=1), not rank zero: it reports nothing." in pods[1].output()
    assert "not rank zero" not in pods[0].output()
    assert trial.visitors() == {pods[0].popen.pid}


def test_rank_zero_alone_shows_the_status_of_the_trainjob(trial, tmp_path):
    with StatusServer(tmp_path) as server:
        variables = server.variables | {"KATIB_CALLBACKS_SINKS": "auto"}
        trial.start("lightning_trial.py", "--strategy", "ddp", **variables)
        trial.wait()
        server.wait_for(lambda: 100 in server.percentages)

    assert trial.rows() == FINAL
    assert server.seen[-1].metrics == {"accuracy": "1.5", "loss": "2.5", "gathered": "3"}
    assert server.percentages == sorted(server.percentages)
    assert server.percentages.count(0) <= 1, "each process that shows a training begins with it"
    trial.assert_rank_zero_alone_reported()


def test_the_example(trial):
    process = trial.start("lightning_ddp.py", "--epochs", "2")
    trial.wait()

    rows = trial.rows()
    assert [name for name, _ in rows] == ["accuracy", "loss"]
    assert 0.5 < rows[0][1] <= 1
    receipts = re.findall(r"rank (\d) of 2: receipt: (\w+)", process.output())
    assert sorted(receipts) == [("0", "ReportReceipt"), ("1", "None")]
