"""Windows, which has no fcntl: a sentence in place of a missing module."""

import subprocess
import sys

import pytest

SENTENCE = "local experiments need Linux or macOS: Windows has neither process groups nor this kind of file lock"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("from katib_callbacks.local import LocalKatibClient", f"MissingDependencyError: {SENTENCE}"),
        ("from katib_callbacks.cli import main; sys.exit(main(['experiment', 'run', 'one.yaml']))", SENTENCE),
    ],
)
def test_without_fcntl_a_sentence_says_why(code, end):
    command = f"import sys; sys.modules['fcntl'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode in {1, 2}  # a traceback, or an error of the command
    assert done.stderr.strip().endswith(end)
