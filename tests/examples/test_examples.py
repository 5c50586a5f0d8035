"""Each example as a trial, and by hand outside one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
REPORTED = {
    "lightning_digits.py": ["accuracy", "loss"],
    "plain_loop.py": ["accuracy", "loss"],
    "kfold.py": ["accuracy", "accuracy_stdev"],
}


def run(example, **variables):
    return subprocess.run(
        [sys.executable, EXAMPLES / example],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"} | variables,
    )


@pytest.mark.parametrize("example", REPORTED)
def test_an_example_reports_as_a_trial(katib_db_manager, example):
    result = run(example)
    rows = katib_db_manager.metrics()
    assert [row.name for row in rows] == REPORTED[example]
    values = {row.name: float(row.value) for row in rows}
    assert 0.5 < values["accuracy"] <= 1
    assert "delivered=2" in result.stdout


@pytest.mark.parametrize("example", REPORTED)
def test_an_example_trains_outside_a_trial_and_says_that_it_reports_nothing(example):
    result = run(example, KATIB_TRIAL_NAME="")
    assert "nothing" in (result.stdout + result.stderr).lower()
    assert "delivered" not in result.stdout
