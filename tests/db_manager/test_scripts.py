"""The programs that no test imports find what they need: pytest's path is not theirs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "script", ["tests/db_manager/fuzz.py", "tests/db_manager/fuzz_authentication.py", "benchmarks/authentication.py"]
)
def test_a_script_starts(script):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
