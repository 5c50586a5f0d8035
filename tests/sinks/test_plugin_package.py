"""The sink of docs/sinks.md, to the letter: built as a package, installed elsewhere, and chosen by its name."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text(encoding="utf-8")

TRAINING = """
from katib_callbacks import KatibReporter
with KatibReporter() as reporter:
    receipt = reporter.report({"loss": 0.5, "val/acc": 0.9})
print({name: outcome.delivered for name, outcome in receipt.sinks.items()})
"""


def code(mark):
    (block,) = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return block


def test_a_sink_takes_ten_lines():
    assert len([line for line in code("plug-in").splitlines() if line]) <= 10


def test_a_plug_in_of_another_package(tmp_path, katib_db_manager):
    if find_spec("hatchling") is None:
        pytest.skip("`sinks` has hatchling, which builds the package")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "mystore.py").write_text(code("plug-in"))
    (source / "pyproject.toml").write_text(code("plug-in project"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, timeout=240, stdin=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("mystore-1.0-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, timeout=240, stdin=subprocess.DEVNULL)
    rows = tmp_path / "rows.txt"
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "KATIB_CALLBACKS_SINKS": f"katib,mystore://{rows}"}

    def train(**more):
        return subprocess.run(
            [sys.executable, "-c", TRAINING],
            env={**environ, **more},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    without = train()
    done = train(PYTHONPATH=os.pathsep.join(paths))

    assert without.returncode == 1
    assert "there is no sink 'mystore://" in without.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{{'katib': 2, 'mystore://{rows}': 2}}\n"
    assert re.fullmatch(r"\S+ loss 0.5\n\S+ val/acc 0.9\n", rows.read_text())
    assert [log.name for log in katib_db_manager.metrics()] == ["loss", "val/acc"]
