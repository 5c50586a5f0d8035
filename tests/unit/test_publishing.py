"""What GitHub, PyPI and pre-commit read: it fits the sessions, the version and the files that there are."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from katib_callbacks import __version__

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
BASH = shutil.which("bash")
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")

sys.path.append(str(ROOT / "deploy"))
from distributions import relative_links, with_absolute_links  # noqa: E402


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def sessions():
    return {
        node.name
        for node in ast.parse(NOXFILE).body
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(d) for d in node.decorator_list)
    }


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def named_sessions(workflow):
    """Return each session that a workflow runs; ``SESSION`` for those of a matrix."""
    run = [step.get("run", "") for step in steps(workflow)]
    return {name for text in run for name in re.findall(r'\bnox -s (?:"\$)?(\w+)', text)}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_sessions_that_there_are_and_may_do_no_more_than_it_says(path):
    workflow = read(path)

    run = named_sessions(workflow)
    assert run
    assert run <= {*sessions(), "SESSION"}
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            checked = subprocess.run([BASH, "-n"], input=step["run"], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr
        else:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"])


def test_the_tests_workflow_runs_what_ci_runs(tmp_path):
    jobs = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    (script,) = (step["run"] for step in jobs["sessions"]["steps"] if "run" in step)
    output = tmp_path / "output"

    subprocess.run([BASH, "-c", script], cwd=ROOT, env={**os.environ, "GITHUB_OUTPUT": str(output)}, check=True)

    name, _, value = output.read_text(encoding="utf-8").partition("=")
    assert name == "names"
    assert {"tests", "lint", "databases", "tests_distributed"} <= set(json.loads(value)) <= sessions()
    assert "needs.sessions.outputs.names" in jobs["nox"]["strategy"]["matrix"]["session"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one(path):
    form = read(path)

    assert {"name", "description", "body"} <= set(form)
    names = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(names)) == len(names) > 0
    for part in form["body"]:
        assert part["type"] in {"markdown", "textarea", "input"}
        assert part["attributes"].get("label" if part["type"] != "markdown" else "value")


def test_pre_commit_has_the_ruff_of_the_session():
    (pinned,) = set(re.findall(r"ruff==[\d.*]+", NOXFILE))

    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["additional_dependencies"] for hook in hooks] == [[pinned]] * len(hooks)


def test_the_citation_is_of_this_version():
    assert read(ROOT / "CITATION.cff")["version"] == __version__


def test_the_readmes_links_lead_to_files_and_become_absolute():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    links = relative_links(readme)
    assert links
    assert [path for path in links if not (ROOT / path.partition("#")[0]).exists()] == []
    absolute = with_absolute_links(readme, "https://example.com/r", "1.0")
    assert relative_links(absolute) == []
    assert "(https://example.com/r/blob/v1.0/docs/api.md)" in absolute
    assert "(https://example.com/r/tree/v1.0/examples)" in absolute


def test_a_picture_that_is_a_link_becomes_absolute_as_a_whole():
    told = with_absolute_links("[![a](docs/a.png)](docs/api.md#b) [c](#d) [e](https://f)", "https://r", "1")

    assert told == "[![a](https://r/raw/v1/docs/a.png)](https://r/blob/v1/docs/api.md#b) [c](#d) [e](https://f)"


def test_each_picture_of_the_gallery_is_shown_with_words_and_all_are_small():
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^!\[(.+)\]\(gallery/([\w-]+\.png)\)$", page, re.MULTILINE))
    pictures = list((ROOT / "docs" / "gallery").glob("*.png"))
    assert sorted(shown.values()) == sorted(path.name for path in pictures)
    assert all(len(words) > 20 for words in shown)
    assert sum(path.stat().st_size for path in pictures) < 1_000_000
