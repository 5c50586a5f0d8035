"""What `nox -s demo` prints works when it is copied."""

import re
import shutil
from pathlib import Path

import pytest
from pages import ROOT, Sandbox

pytest.importorskip("plotly")


@pytest.fixture
def sandbox(tmp_path):
    """A folder like a checkout, with the demo in it and a browser that only says what it opens."""
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "opened $1"\n')
    browser.chmod(0o755)
    sandbox = Sandbox(tmp_path, BROWSER=f"{browser} %s", TMPDIR=str(tmp_path))
    shutil.copy(ROOT / "examples" / "demo.py", tmp_path / "examples")
    return sandbox


def test_each_command_that_the_demo_prints_does_again_what_it_did(sandbox):
    printed = sandbox.run("python examples/demo.py")

    commands = re.findall(r"^\$ (.+)$", printed, re.MULTILINE)
    assert [re.search(r"-m ([\w.]+)", command)[1] for command in commands] == [
        *["katib_callbacks.cli"] * 3,
        "webbrowser",
    ]
    run, status, plot, browse = commands
    assert "Succeeded" in sandbox.run(run)
    assert (
        sandbox.run("katib-callbacks experiment list").count("lightning-digits") == 1
    )  # in the folder of who copies it
    assert sandbox.run(status) in printed
    (picture,) = map(Path, re.findall(r"-o (\S+)", plot))
    picture.unlink()
    sandbox.run(plot)
    assert "<html" in picture.read_text(encoding="utf-8")
    assert f"opened {picture.as_uri()}" in sandbox.run(browse)
