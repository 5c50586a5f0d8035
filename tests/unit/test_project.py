"""What the documents promise of the project's commands."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def command(session):
    """Return README's line that makes an environment with nox and runs one session."""
    (line,) = re.findall(rf"^ *(python3 -m venv \S+ && .*nox -s {session})$", README, re.MULTILINE)
    return line


def test_ci_runs_exactly_the_command_that_the_readme_names():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert command("tests") in lines
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_names_the_demo():
    assert command("demo") == command("tests").replace("-s tests", "-s demo")


def sessions():
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(d) for d in node.decorator_list)
    ]


@pytest.mark.parametrize("session", sessions())
def test_every_session_is_documented(session):
    assert f"`{session}`" in CONTRIBUTING
