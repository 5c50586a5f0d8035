"""A tiny module and Trainer: each fit takes a fraction of a second."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the oldest releases import is deprecated all over by now
    from lightning.pytorch import LightningModule, Trainer

DATA = TensorDataset(torch.arange(8.0).reshape(8, 1), torch.arange(8.0).reshape(8, 1))


def pytest_collection_modifyitems(items):
    here = __file__.rpartition("/")[0]
    for item in items:
        if str(item.path).startswith(here):
            # Lightning's advice on workers, logging intervals and the like; torch's on its own deprecated internals.
            item.add_marker(
                pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
            )
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(torch|lightning)"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:FutureWarning:(torch|lightning)"))


class TinyModule(LightningModule):
    """Logs numbers that tell their epoch: ``val_acc`` is (epoch + 1) / 10, ``train_loss`` 1 / (epoch + 1)."""

    def __init__(self, val_accuracies=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.val_accuracies = val_accuracies

    def training_step(self, batch, _):
        x, y = batch
        loss = (self.layer(x) - y).square().mean()
        self.log("train_loss", 1.0 / (self.current_epoch + 1), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        epoch = self.current_epoch
        accuracy = self.val_accuracies[epoch] if self.val_accuracies else (epoch + 1) / 10
        if self.trainer.sanity_checking:
            accuracy = 99.0
        self.log("val_acc", accuracy)

    def test_step(self, batch, batch_idx):
        self.log("test_acc", 0.75)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


@pytest.fixture
def module():
    return TinyModule()


@pytest.fixture
def loader():
    return DataLoader(DATA, batch_size=4)


@pytest.fixture
def make_trainer(tmp_path):
    def make(*callbacks, trainer_class=Trainer, **options):
        defaults = {
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        return trainer_class(callbacks=list(callbacks), **(defaults | options))

    return make


@pytest.fixture
def driver(make_trainer, loader, tmp_path):
    from frameworks.lightning.driver import LightningDriver  # noqa: PLC0415  after TinyModule, from which it derives

    return LightningDriver(make_trainer, loader, tmp_path)
