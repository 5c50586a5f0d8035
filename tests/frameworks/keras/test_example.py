"""The example, on this backend, as a trial and by hand outside one."""

import os
import subprocess
import sys
from pathlib import Path

import keras

EXAMPLE = Path(__file__).parents[3] / "examples" / "keras_digits.py"


def run(**variables):
    environ = os.environ | {"PYTHONWARNINGS": "ignore", "KERAS_BACKEND": keras.backend.backend()} | variables
    return subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=True, env=environ
    )


def test_the_example_reports_as_a_trial(katib_db_manager):
    result = run()
    assert [row.name for row in katib_db_manager.metrics()] == ["accuracy", "loss"]
    assert 0.5 < katib_db_manager.latest()["accuracy"] <= 1
    assert f"trained 5 epochs on {keras.backend.backend()}" in result.stdout
    assert "delivered=2" in result.stdout


def test_the_example_trains_outside_a_trial_and_says_that_it_reports_nothing():
    result = run(KATIB_TRIAL_NAME="")
    assert "nothing will be reported" in result.stderr
    assert "receipt: None" in result.stdout
