"""The transformers Trainer under torchrun."""

import re


def test_the_example_under_torchrun(trial):
    process = trial.torchrun("watched.py", "transformers_torchrun.py", "--epochs", "1", "--hidden-size", "16")
    trial.wait()

    rows = trial.rows()
    assert [name for name, _ in rows] == ["accuracy", "loss", "test_accuracy"]
    receipts = re.findall(r"rank (\d) of 2: receipt: (\w+)", process.output())
    assert sorted(receipts) == [("0", "ReportReceipt"), ("1", "None")]
    trial.assert_rank_zero_alone_came()
