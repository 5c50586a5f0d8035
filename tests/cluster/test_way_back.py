"""The way of docs/platform.md into the place of Katib's DB manager and back, by the page's own commands."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from clusters import state, values
from test_authenticated_db_manager import CONTROL, ROOT, bare

PAGE = (ROOT / "docs" / "platform.md").read_text(encoding="utf-8")
IMAGE = os.environ.get("KATIB_CALLBACKS_TEST_DB_MANAGER_IMAGE")
DEPLOYMENT = ("deployment", "katib-db-manager")
PROGRAM = "from katib_callbacks import report_metrics; report_metrics({'value': 7})"

pytestmark = pytest.mark.skipif(not IMAGE, reason="KATIB_CALLBACKS_TEST_DB_MANAGER_IMAGE names no image")


@pytest.fixture
def run(cluster, tmp_path):
    """Return a function that runs a block of the page in a copy of the checkout; Katib's manager is back after it."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(Path(cluster._kubectl).resolve())
    environment = os.environ | {"IMAGE": IMAGE, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    before = bare(cluster.get(*DEPLOYMENT, namespace=CONTROL))

    def run(mark):
        (block,) = re.findall(rf"^ *<!-- {mark} -->\n *```sh\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
        done = subprocess.run(
            ["bash", "-ec", textwrap.dedent(block)],  # noqa: S607  the one that there is
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done

    yield run
    cluster.delete("poddisruptionbudget", "katib-db-manager", namespace=CONTROL)
    cluster.run("replace", "-f", "-", stdin=json.dumps(before))
    cluster.run("rollout", "status", "/".join(DEPLOYMENT), "-n", CONTROL, "--timeout=600s")


def test_trials_report_in_katibs_place_and_after_the_way_back(cluster, submit, run):
    katibs = cluster.get(*DEPLOYMENT, namespace=CONTROL)
    for mark in ("image", "before", "manager"):
        run(mark)
    ours = cluster.get(*DEPLOYMENT, namespace=CONTROL)
    assert image(ours) == IMAGE
    assert ours["spec"]["selector"] == katibs["spec"]["selector"]
    assert variables(ours) == variables(katibs)
    _, (trial,) = submit(cluster.script("in-katibs-place", f'python -c "{PROGRAM}"'))
    assert state(trial) == "Succeeded", cluster.log(trial)
    assert float(values(trial)["value"]) == 7

    run("back: manager")
    cluster.run("rollout", "status", "/".join(DEPLOYMENT), "-n", CONTROL, "--timeout=600s")

    back = cluster.get(*DEPLOYMENT, namespace=CONTROL)
    assert image(back) == image(katibs)
    assert back["spec"]["replicas"] == 1
    assert not cluster.can("get", "poddisruptionbudget", "katib-db-manager", "-n", CONTROL)
    _, (trial,) = submit(cluster.script("way-back", f'python -c "{PROGRAM}"'))
    assert state(trial) == "Succeeded", cluster.log(trial)
    assert float(values(trial)["value"]) == 7


def image(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container["image"]


def variables(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container.get("env")
