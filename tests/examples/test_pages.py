"""What README.md and docs/ have one type, to the letter: it runs, and what it reports arrives at a DB manager."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from pages import PAGES, PYTHON, SHELL, Sandbox, blocks, run_in_framework

from katib_callbacks.lightning import KatibReportCallback

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def snippets(page, mark):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^<!-- {mark} -->\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


LIGHTNING = snippets("moving.md", "lightning")


def test_every_move_for_lightning_is_run():
    assert len(LIGHTNING) == 3


@pytest.mark.parametrize("snippet", LIGHTNING)
@pytest.mark.filterwarnings("ignore:::lightning", "ignore::FutureWarning", "ignore::UserWarning")
def test_what_one_moves_to_reports(snippet, katib_db_manager, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    lightning_digits = importlib.import_module("lightning_digits")
    train_loader, val_loader = lightning_digits.digits_loaders()
    names = types.SimpleNamespace(
        Trainer=Trainer,
        KatibReportCallback=KatibReportCallback,
        module=lightning_digits.DigitsClassifier(0.01, 8),
        train_loader=train_loader,
        val_loader=val_loader,
        logger=CSVLogger(tmp_path),
    )
    exec(compile(snippet, "moving.md", "exec"), vars(names))  # noqa: S102 - what the page has one write
    rows = katib_db_manager.metrics()
    assert {row.name for row in rows} == {"accuracy"}
    assert len(rows) == (2 if "history" in snippet else 1)
    assert float(rows[-1].value) == pytest.approx(float(names.trainer.callback_metrics["val_acc"]))


STRANGERS_TRAINING = """
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
{imports}

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, _):
        self.log("val_acc", 0.75)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


max_epochs = 1
{trainer}
trainer.fit(Module(), DataLoader(torch.zeros(4, 1)), DataLoader(torch.zeros(1, 1)))
"""


def test_a_stranger_comes_from_the_first_page_to_a_reported_metric(tmp_path):
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    code = re.search(r'^=== "Lightning"\n\n    ```python\n(.*?)^    ```', page, re.MULTILINE | re.DOTALL)[1]
    imported, _, trainer = code.replace("\n    ", "\n").strip().partition("\n\n")
    (tmp_path / "train.py").write_text(STRANGERS_TRAINING.format(imports=imported, trainer=f"trainer = {trainer}"))
    (commands,) = re.findall(r'^pip install "\.\[db-manager\]"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    assert "--db sqlite:///katib.db &" in commands
    # On a free port, and once it listens: a person takes that long to type the next line.
    served = commands.replace("sqlite:///katib.db &", "sqlite:///katib.db --listen 127.0.0.1:0 >listening &\n" + WAIT)
    assert served.count("KATIB_DB_MANAGER_ADDRESS=127.0.0.1:6789") == 1
    served = served.replace("127.0.0.1:6789", "$address").replace(" logs ", " logs --address $address ")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in {"python": "-W ignore", "katib-callbacks": "-m katib_callbacks.cli"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash"), "-ec", f"trap 'kill %1; wait' EXIT\n{served}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done
    assert re.search(r"val_acc\s.*0\.75", done.stdout), done


WAIT = """until grep -q 'listening on' listening; do sleep 0.1; done
address=$(sed -n 's/.*listening on \\([0-9.:]*\\).*/\\1/p' listening)
"""


ELSEWHERE = {"pictures.md"}
"""Pages whose blocks need more than is installed here; tests/pictures runs them."""

SCRIPTS = {PYTHON, "folds"}
"""Kinds of Python that need no framework."""

HERE = [block for block in blocks() if block.page not in ELSEWHERE]


def reported_names(code):
    """Return the names in Katib of what a block's callbacks are told to report, where it says them."""
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "KatibReportCallback" and call.args:
            named = ast.literal_eval(call.args[0])
            yield from [named] if isinstance(named, str) else named


@pytest.mark.parametrize("kind", ["lightning", "keras", "transformers"])
def test_what_pages_have_one_write_in_a_framework_reports(kind, katib_db_manager, tmp_path):
    chosen = [block for block in HERE if block.kind == kind and block.mark != kind]
    assert len(chosen) > 2
    assert run_in_framework(kind, chosen, tmp_path) == [block.name for block in chosen]
    for block in chosen:
        rows = {row.name for row in katib_db_manager.metrics(block.name)}
        assert rows, block
        assert set(reported_names(block.code)) <= rows, block


@pytest.fixture
def sandbox(tmp_path, katib_db_manager):
    """A folder like a checkout, whose processes belong to a trial."""
    trial = {"KATIB_TRIAL_NAME": "test-trial", "KATIB_DB_MANAGER_ADDRESS": katib_db_manager.address}
    return Sandbox(tmp_path, **trial)


TYPED = {path.name: [b for b in HERE if b.page == path.name and b.kind in {SHELL, *SCRIPTS}] for path in PAGES}


@pytest.mark.parametrize("page", [page for page, found in TYPED.items() if found])
def test_what_a_page_has_one_type_runs(page, sandbox, katib_db_manager):
    """One block after the other, in one folder, as a person goes through the page."""
    for block in TYPED[page]:
        before = len(katib_db_manager.metrics())
        out = sandbox.run_python(block.code, block.kind) if block.kind in SCRIPTS else sandbox.run(block.code)
        if "KatibReporter" in block.code or "katib-callbacks report " in block.code:
            assert len(katib_db_manager.metrics()) > before, block
        if "client." in block.code:
            assert "'lr'" in out or "'a'" in out, block  # the best hyperparameters


def test_what_is_typed_beside_an_experiment(sandbox):
    """docs/local.md: its budget is edited and it is stopped while it runs; then it goes on."""
    beside, go_on = (block.code for block in blocks("local.md") if block.mark in {"while it runs", "go on"})
    for name in ("tpe", "long-running"):
        path = sandbox.folder / "examples" / "experiments" / f"{name}.yaml"
        path.write_text((ROOT / "examples" / "experiments" / f"{name}.yaml").read_text().replace("train.py", "wait.py"))
    (sandbox.folder / "examples" / "experiments" / "wait.py").write_text(WAITING)
    sandbox.run("touch go")
    sandbox.run("katib-callbacks experiment run examples/experiments/long-running.yaml && rm go waits")

    running = sandbox.start("katib-callbacks experiment run examples/experiments/tpe.yaml")
    sandbox.run("until [ -e waits ]; do sleep 0.1; done")
    assert "resume tpe" in sandbox.run(beside)
    out, err = running.communicate(timeout=240)
    assert running.returncode == 130, (out, err)

    sandbox.run("touch go")
    done = sandbox.run(go_on)
    assert re.search(r"tpe.*20", done), done


WAITING = """
import os, pathlib, time
from katib_callbacks import report_metrics
here = pathlib.Path(os.environ["KATIB_CALLBACKS_SUBMIT_DIR"])
(here / "waits").touch()
while not (here / "go").exists():
    time.sleep(0.05)
report_metrics({"loss": 0.5})
"""
"""A training that goes on until there is a file."""


def test_tests_of_ones_own_pass_as_the_readme_has_them(tmp_path):
    beside = (Path(__file__).parent / "pages" / "pytest.py").read_text(encoding="utf-8")
    chosen = [block for block in blocks() if block.kind == "pytest"]
    assert len(chosen) == 2
    for block in chosen:
        (tmp_path / f"test_{block.line}.py").write_text(beside + block.code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
