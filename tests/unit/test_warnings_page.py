"""docs/troubleshooting.md has every warning that a trial's own process can log, and every check of the doctor."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "katib_callbacks"
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TRIAL_SIDE = ["recording", "reporting", "sinks", "_autolog", "settings", "lightning.py", "keras.py", "transformers.py"]
CALLS = {"warning", "warn", "warn_once"}
FINDINGS = {"Finding", "about_token", "about_certificate", "_about_end"}
"""What makes a line of the doctor; each takes the check's name first."""


def calls(names, *paths):
    """Yield the calls of functions of these names."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in names:
                yield node


def texts(call):
    return [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]


def normal(text):
    """Return a text in one line, with what differs as three dots, whatever stands around it."""
    return re.sub(r"[\s.:;,()]*(\.\.\.|%[-+.\d]*[a-z])[\s.:;,()]*", " ... ", re.sub(r"\s+", " ", text))


def test_every_warning_of_a_trial_is_explained():
    paths = [
        path for name in TRIAL_SIDE for path in ([PACKAGE / name] if "." in name else (PACKAGE / name).rglob("*.py"))
    ]
    messages = [text for call in calls(CALLS, *paths) for text in texts(call) if text.count(" ") > 2]
    found = {normal(text)[:48].strip(". ") for text in messages}
    page = normal(PAGE)
    assert len(found) > 30
    assert {words for words in found if words not in page} == set()


def test_every_check_of_the_doctor_is_explained_and_no_other():
    made = calls(FINDINGS, *(PACKAGE / "cli" / "doctor").glob("*.py"))
    checks = {call.args[0].value for call in made if isinstance(call.args[0], ast.Constant)}
    assert len(checks) > 12
    assert set(re.findall(r'<a id="doctor-(\w+)"></a>`\1`', PAGE)) == checks


@pytest.mark.parametrize("section", ["The termination message", "The doctor", "Warnings of a trial"])
def test_every_row_has_an_anchor_of_its_own(section):
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    headings = re.compile(r"\|(---| message| check| warning)")
    rows = [line for line in text.splitlines() if line.startswith("|") and not headings.match(line)]
    anchors = [re.match(r'\| <a id="([a-z-]+)"></a>`', row) for row in rows]
    assert len(anchors) > 5
    assert [row for row, anchor in zip(rows, anchors, strict=True) if anchor is None] == []
    assert len({anchor[1] for anchor in anchors}) == len(anchors)
    assert all(PAGE.count(f'id="{anchor[1]}"') == 1 for anchor in anchors)
