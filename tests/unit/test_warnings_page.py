"""docs/troubleshooting.md has every warning that a trial's own process can log."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "katib_callbacks"
TRIAL_SIDE = ["recording", "reporting", "sinks", "_autolog", "settings", "lightning.py", "keras.py", "transformers.py"]
CALLS = {"warning", "warn", "warn_once"}


def messages(tree):
    """Yield the constant formats of calls that warn."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in CALLS:
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from (text for text in texts if text.count(" ") > 2)


def normal(text):
    """Return a text in one line, with what differs as three dots, whatever stands around it."""
    return re.sub(r"[\s.:;,()]*(\.\.\.|%[-+.\d]*[a-z])[\s.:;,()]*", " ... ", re.sub(r"\s+", " ", text))


def test_every_warning_of_a_trial_is_explained():
    paths = [
        path for name in TRIAL_SIDE for path in ([PACKAGE / name] if "." in name else (PACKAGE / name).rglob("*.py"))
    ]
    found = {
        normal(text)[:48].strip(". ")
        for path in paths
        for text in messages(ast.parse(path.read_text(encoding="utf-8")))
    }
    page = normal((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(found) > 30
    assert {words for words in found if words not in page} == set()
