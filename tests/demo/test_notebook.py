"""The notebook of the examples runs from the first cell to the last, in a kernel as a person's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / "search.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=250).execute()
nbformat.write(notebook, sys.argv[1])
"""
"""In a process of its own: a client of a kernel leaves sockets behind."""

TRIALS = 2
"""In place of six: each imports Lightning."""


def test_the_search_runs_and_shows_what_it_found(tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell["source"] = re.sub(r"max_trial_count=\d+", f"max_trial_count={TRIALS}", cell["source"])
        cell["outputs"] = []

    nbformat.write(notebook, tmp_path / "search.ipynb")
    subprocess.run([sys.executable, "-c", EXECUTE, "search.ipynb"], cwd=tmp_path, check=True, timeout=280)

    notebook = nbformat.read(tmp_path / "search.ipynb", 4)
    shown = [json.dumps(cell.get("outputs", [])) for cell in notebook.cells]
    assert any("is Succeeded" in one and "best accuracy" in one for one in shown)  # the live view, at its end
    assert any("Best trial" in one and "hidden" in one for one in shown)
    assert any('"image/png"' in one for one in shown)
    (names,) = (re.findall(r"^digits-\w+ .*'lr'.* ([\d.]+)$", one["text"], re.MULTILINE) for one in streams(notebook))
    assert len(names) == TRIALS
    assert all(0 < float(accuracy) <= 1 for accuracy in names)


def streams(notebook):
    """Yield what the cell that lists the trials has printed."""
    for cell in notebook.cells:
        if cell["source"].startswith("for trial in"):
            yield from cell["outputs"]


def test_it_was_saved_as_it_ran():
    """The site shows the outputs that are in the file."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 200_000
