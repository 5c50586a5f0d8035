"""A stranger's tour: from a plain Lightning script, by README.md alone, to a metric that is read back.

README's own commands run in an empty folder, and its own lines are added to the script. What differs: where the package
comes from, the port (a free one), and that the second command waits until the first one listens, as a person does.

``TOUR_PACKAGES``: in a new environment, with these packages and what README's command then installs (nox's `tours`).
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASH = shutil.which("bash")
PACKAGES = os.environ.get("TOUR_PACKAGES", "").split()
TIMEOUT_S = 900

PLAIN = """
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.log("val_acc", (self.layer(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loader():
    x = torch.randn(64, 2)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=32)


model, train_loader, val_loader = Model(), loader(), loader()
trainer = Trainer(
    max_epochs=10,
)
trainer.fit(model, train_loader, val_loader)
print("trained to", trainer.callback_metrics["val_acc"].item())
"""
"""A script of somebody's who has not heard of Katib."""

LISTENS = """until grep -q 'listening on' listening; do sleep 0.1; done
address=$(sed -n 's/.*listening on \\([0-9.:]*\\).*/\\1/p' listening)
"""


def block(mark):
    (text,) = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return text


def with_readmes_lines(script):
    """Return the script with the lines of README's first block that it has not: an import, and an argument."""
    first = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    lines = [line for line in first.splitlines() if line not in script.splitlines()]
    imported, argument = (line for line in lines if not line.startswith(("from lightning", "trainer = ")))
    assert imported.startswith("from katib_callbacks")
    assert argument.startswith("    callbacks=[")
    head, _, tail = script.partition("\nfrom torch.utils")
    changed = f"{head}\n{imported}\nfrom torch.utils{tail}"
    assert changed.count("    max_epochs=10,\n") == 1
    return changed.replace("    max_epochs=10,\n", f"    max_epochs=10,\n{argument}\n")


def run(commands, folder, programs):
    return subprocess.run(
        [BASH, "-ec", commands],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(("KATIB", "PYTHONPATH"))}
        | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def processor_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def programs(tmp_path):
    """Return the folder of a Python, pip and our commands: a new environment's, or those of this one."""
    if PACKAGES:
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
        programs = tmp_path / "venv" / "bin"
        subprocess.run([programs / "pip", "install", "--quiet", *PACKAGES], check=True)
        return programs
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in {"python": "", "katib-callbacks": "-m katib_callbacks.cli"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.timeout(3_600 if PACKAGES else 1_000)
def test_a_plain_lightning_script_reports_after_what_the_readme_says(tmp_path, programs):
    folder = tmp_path / "training"
    folder.mkdir()
    script = folder / "train.py"
    script.write_text(PLAIN, encoding="utf-8")
    started_s, busy_s = time.monotonic(), processor_s()

    install = block("tour: install")
    assert install == 'pip install ".[db-manager]"\n'
    if PACKAGES:
        installed = run(install, ROOT, programs)
        assert installed.returncode == 0, installed.stderr
    script.write_text(with_readmes_lines(PLAIN), encoding="utf-8")
    commands = block("tour: report")
    served, trained, read = commands.splitlines()
    assert served == "katib-callbacks db-manager --db sqlite:///katib.db &"
    assert "127.0.0.1:6789" in trained
    done = run(
        "trap 'kill %1; wait' EXIT\n"
        + served.replace(" &", " --listen 127.0.0.1:0 > listening &\n")
        + LISTENS
        + trained.replace("127.0.0.1:6789", "$address")
        + f"\n{read} --address $address\n",
        folder,
        programs,
    )
    if PACKAGES:
        took = f"{time.monotonic() - started_s:.0f} s, {processor_s() - busy_s:.0f} s of them a processor's"
        sys.stderr.write(f"\nfrom README's first command to the metric: {took}\n")

    assert done.returncode == 0, done
    trained_to = float(re.search(r"^trained to (\S+)$", done.stdout, re.MULTILINE)[1])
    (row,) = re.findall(r"^.*\baccuracy\s.*$", done.stdout, re.MULTILINE)
    assert trained_to in map(float, re.findall(r"(?<!\S)\d(?:\.\d+)?(?!\S)", row)), done.stdout  # of 64 samples: exact
