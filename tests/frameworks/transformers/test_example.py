"""The example, run as a person and as Katib would."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "transformers_digits.py"


def run():
    command = [sys.executable, EXAMPLE, "--epochs", "1", "--hidden-size", "16"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_example_reports_what_it_prints(katib_db_manager):
    output = run().stdout
    printed = re.search(r"accuracy (\S+), loss (\S+)", output)
    assert {name: f"{value:.4f}" for name, value in katib_db_manager.latest().items()} == {
        "accuracy": printed[1],
        "loss": printed[2],
    }
    assert "delivered=2" in output


def test_the_example_trains_outside_a_trial_too(monkeypatch):
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    done = run()
    assert "receipt: None" in done.stdout
    assert "Not in a Katib trial" in done.stderr
