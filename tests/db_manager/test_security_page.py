"""What docs/security.md has one do by hand, to the letter but for its ports: files, server, trial."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from beside import said

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
COMMANDS = f'python() {{ "{sys.executable}" "$@"; }}\nkatib-callbacks() {{ python -m katib_callbacks.cli "$@"; }}\n'
"""So that they are found where no virtual environment is active."""

BASH = shutil.which("bash")
TIMEOUT_S = 120


@pytest.fixture
def start(tmp_path):
    """Start a block of the document in bash, in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KATIB")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started = []

    def start(mark, **ports):
        (block,) = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
        for port, other in ports.items():
            assert port.strip("_") in block
            block = block.replace(port.strip("_"), other)
        process = subprocess.Popen(
            [BASH, "-ec", COMMANDS + block],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.skipif(not (shutil.which("openssl") and BASH), reason="needs bash and openssl")
def test_a_trial_reports_with_what_the_page_has_one_make(start, tmp_path):
    files = start("files")
    _, err = files.communicate(timeout=TIMEOUT_S)
    assert (files.returncode, err) == (0, "")
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0

    server = start("server", _6789="0", _6790="0")
    assert "listening on 127.0.0.1" in server.stdout.readline()
    port = re.fullmatch(r"DB manager: listening for trials on 0.0.0.0:(\d+)\n", server.stdout.readline())[1]

    trial = start("trial", _6790=port)
    _, err = trial.communicate(timeout=TIMEOUT_S)
    assert (trial.returncode, said(err)) == (0, [])

    stranger = start("trial", _6790=port, digits_="other")
    _, err = stranger.communicate(timeout=TIMEOUT_S)
    assert stranger.returncode != 0
    assert "PERMISSION_DENIED" in err

    os.killpg(server.pid, signal.SIGTERM)
    _, log = server.communicate(timeout=TIMEOUT_S)
    assert len(said(log)) == 1, log
    (line,) = said(log)
    assert "caller 'ci', trial 'other-1': the credential is for other trials" in line
