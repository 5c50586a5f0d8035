"""A pod that is preempted: Lightning ends as if all had gone well, and what docs/lightning.md has one do about it."""

import subprocess
import sys

import pytest
from pages import blocks

SCRIPT = """
import os, signal, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from katib_callbacks.lightning import KatibReportCallback

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, index):
        self.log("loss", 0.25)
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch[0]).mean()
    def validation_step(self, batch, index):
        pass
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

model = Module()
train_loader = val_loader = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=1)
trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    callbacks=[KatibReportCallback("loss")])
"""


def advice():
    (block,) = (block for block in blocks("lightning.md") if block.mark == "preemption")
    return block.code


@pytest.mark.parametrize(("call", "status"), [("trainer.fit(model, train_loader)", 0), (advice(), 143)])
def test_sigterm_reports_nothing_and_ends_as_the_docs_say(katib_db_manager, call, status):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT + call], capture_output=True, text=True, timeout=240, check=False
    )

    assert result.returncode == status, result.stderr
    assert katib_db_manager.metrics() == []
