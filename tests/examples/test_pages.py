"""What docs/index.md and docs/moving.md have one write, to the letter: it arrives at a DB manager."""

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
