"""What the Lightning callback delivers, as upstream's client reads it."""

import pytest
import torch
from kubeflow import katib
from kubernetes.client import Configuration
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from katib_callbacks.lightning import KatibReportCallback

# Lightning's own affairs: its use of torch's deprecated internals, and its advice on workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(torch|lightning)"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"),
]


class Regression(LightningModule):
    """One weight that learns y = 2x."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("val_loss", self.loss(batch))

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_upstreams_client_reads_what_the_callback_wrote(katib_db_manager, tmp_path):
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = DataLoader(TensorDataset(x, 2 * x), batch_size=8)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[KatibReportCallback({"loss": "val_loss"})],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Regression(), loader, loader)

    client = katib.KatibClient(client_configuration=Configuration())
    (log,) = client.get_trial_metrics(katib_db_manager.trial_name, db_manager_address=katib_db_manager.address)
    assert log.metric.name == "loss"
    assert torch.tensor(float(log.metric.value)) == trainer.callback_metrics["val_loss"]
