"""Copies, pickles, checkpoints, Lightning's tuner."""

import pickle

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from katib_callbacks.lightning import KatibReportCallback

DATA = TensorDataset(torch.ones(8, 1), torch.ones(8, 1))


def rows(katib_db_manager):
    return [(row.name, row.value) for row in katib_db_manager.metrics()]


def test_a_pickle_leaves_the_module_and_the_trainer_behind(katib_db_manager, make_trainer, module, loader):
    class Local(type(module)):  # cannot be pickled: its class has no importable name
        pass

    callback = KatibReportCallback("val_acc")
    make_trainer(callback).fit(Local(), loader, loader)
    make_trainer(pickle.loads(pickle.dumps(callback))).fit(module, loader, loader)  # noqa: S301  our own bytes
    assert rows(katib_db_manager) == [("val_acc", "0.2")] * 2


def test_a_checkpoint_with_our_rows_is_read_without_unpickling(katib_db_manager, driver):
    checkpoint = driver.interrupted(KatibReportCallback("val_acc"), scores=[0.5], epochs=2)
    state = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert any(key.startswith("KatibReportCallback") for key in state)


def test_a_finished_checkpoint_leaves_nothing_to_report(katib_db_manager, make_trainer, module, loader, tmp_path):
    checkpoint = ModelCheckpoint(str(tmp_path), save_last=True)
    make_trainer(KatibReportCallback("val_acc"), checkpoint, enable_checkpointing=True).fit(module, loader, loader)
    make_trainer(KatibReportCallback("val_acc")).fit(module, loader, loader, ckpt_path=tmp_path / "last.ckpt")
    assert rows(katib_db_manager) == [("val_acc", "0.2")]


def test_a_checkpoint_loaded_for_an_evaluation_does_not_reach_the_next_fit(
    katib_db_manager, make_trainer, module, loader, tmp_path
):
    checkpoint = ModelCheckpoint(str(tmp_path), save_last=True)
    callback = KatibReportCallback("val_acc", report="history")
    trainer = make_trainer(callback, checkpoint, enable_checkpointing=True, max_epochs=1)
    trainer.fit(module, loader, loader)
    trainer.validate(module, loader, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    make_trainer(callback, max_epochs=1).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.1"), ("val_acc", "0.1")]


def test_the_tuner_reports_nothing(katib_db_manager, make_trainer, module, loader):
    module.learning_rate = 0.001
    trainer = make_trainer(KatibReportCallback("val_acc"))
    Tuner(trainer).lr_find(module, loader, loader, num_training=3, min_lr=1e-4, max_lr=1e-2)
    assert rows(katib_db_manager) == []
    trainer.fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2")]


def test_the_batch_size_scaler_reports_nothing(katib_db_manager, make_trainer, module):
    module.batch_size = 2
    module.train_dataloader = lambda: DataLoader(DATA, batch_size=module.batch_size)
    module.val_dataloader = lambda: DataLoader(DATA, batch_size=4)
    trainer = make_trainer(KatibReportCallback("val_acc"))
    Tuner(trainer).scale_batch_size(module, steps_per_trial=1, max_trials=2)
    assert rows(katib_db_manager) == []
    trainer.fit(module)
    assert rows(katib_db_manager) == [("val_acc", "0.2")]


class CountingTensor(torch.Tensor):
    """A tensor that counts how often it is read, which on an accelerator waits for the device."""

    reads = 0

    def item(self):
        CountingTensor.reads += 1
        return super().item()


@pytest.mark.parametrize(
    ("report", "total", "in_batches"), [("final", 1, {0}), ("history", 3, {0, 1}), ("best", 3, {0, 1})]
)
def test_a_value_is_read_at_most_once_a_metric_and_epoch(
    katib_db_manager, make_trainer, module, loader, monkeypatch, report, total, in_batches
):
    """Each one when the next epoch's row begins, so that none is waited for while its own epoch runs."""
    monkeypatch.setattr(CountingTensor, "reads", 0)
    options = {"monitor": "val_acc", "mode": "max"} if report == "best" else {}
    callback = KatibReportCallback("val_acc", report=report, **options)
    seen = []

    class Watches(Callback):
        def on_train_batch_end(self, *_):
            seen.append(CountingTensor.reads)

    trainer = make_trainer(callback, Watches(), max_epochs=3)
    take = callback._recorder.record
    callback._recorder.record = lambda values, **options: take(
        {name: value.as_subclass(CountingTensor) for name, value in values.items()}, **options
    )
    trainer.fit(module, loader, loader)
    assert len(katib_db_manager.metrics()) == (3 if report == "history" else 1)
    assert CountingTensor.reads == total
    assert len(seen) == 6
    assert set(seen) == in_batches
