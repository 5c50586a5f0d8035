"""What is on the path of each Python in a trial: it hides nothing of the user's, and fails no import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from katib_callbacks.local import trials

POD = Path(trials.__file__).with_name("pod")

USERS_OWN = """
import sys
from dataclasses import dataclass

@dataclass
class Settings:
    level: "int" = 7

LEVEL = sys.modules[__name__].Settings().level
"""


@pytest.fixture
def in_a_trial(tmp_path):
    """Return a function that runs a script as a trial's Python does, after the modules in ``tmp_path``."""

    def run(script):
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (POD, tmp_path))),
            "KATIB_TRIAL_NAME": "trial",
            "KATIB_DB_MANAGER_ADDRESS": "127.0.0.1:6789",
        }
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True)

    return run


def test_the_users_own_sitecustomize_takes_its_place(in_a_trial, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(USERS_OWN)

    done = in_a_trial("import sitecustomize; print(sitecustomize.LEVEL, sitecustomize.__file__)")

    assert (done.stdout.split(), done.stderr) == (["7", str(tmp_path / "sitecustomize.py")], "")


def test_another_release_of_the_sdk_is_imported_as_it_is(in_a_trial, tmp_path):
    for name, text in (("constants", "OTHER = 1"), ("utils", "OTHER = 2")):
        folder = tmp_path / "kubeflow" / "katib" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(text)

    done = in_a_trial(
        "import os; from kubeflow.katib.constants import constants; del os.environ['KATIB_DB_MANAGER_ADDRESS']; "
        "from kubeflow.katib.utils import utils; print(constants.DEFAULT_DB_MANAGER_ADDRESS, utils.OTHER)"
    )

    assert done.stdout.split() == ["127.0.0.1:6789", "2"]
