"""Copies, pickles, checkpoints, Lightning's tuner."""

import pickle
from inspect import signature

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


@pytest.mark.parametrize("is_used", [False, True])
def test_a_copy_reports_like_the_original(katib_db_manager, make_trainer, module, loader, copied, is_used):
    callback = KatibReportCallback("val_acc")
    if is_used:
        make_trainer(callback).fit(module, loader, loader)
    make_trainer(copied(callback)).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2")] * (1 + is_used)


def test_a_pickle_leaves_the_module_and_the_trainer_behind(katib_db_manager, make_trainer, module, loader):
    class Local(type(module)):  # cannot be pickled: its class has no importable name
        pass

    callback = KatibReportCallback("val_acc")
    make_trainer(callback).fit(Local(), loader, loader)
    make_trainer(pickle.loads(pickle.dumps(callback))).fit(module, loader, loader)  # noqa: S301  our own bytes
    assert rows(katib_db_manager) == [("val_acc", "0.2")] * 2


def interrupted(make_trainer, module, loader, tmp_path, callback, *, epochs):
    """Train some epochs with a checkpoint after each, as a run that is then killed; return the last one."""
    checkpoint = ModelCheckpoint(str(tmp_path), save_last=True, save_on_train_epoch_end=True)
    stop = RuntimeError("killed")

    def fail(*_):
        if module.current_epoch == epochs:
            raise stop

    module.on_train_epoch_start = fail
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer(callback, checkpoint, enable_checkpointing=True, max_epochs=4).fit(module, loader, loader)
    del module.on_train_epoch_start
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"report": "history"}, ["0.5", "0.875", "0.25", "0.125"]),
        ({"report": "best", "monitor": "val_acc", "mode": "max"}, ["0.875"]),
        ({"report": "final"}, ["0.125"]),
    ],
)
def test_a_resumed_run_goes_on_with_the_rows_of_the_checkpoint(
    katib_db_manager, make_trainer, module, loader, tmp_path, options, expected
):
    module.val_accuracies = [0.5, 0.875, 0.25, 0.125]
    path = interrupted(make_trainer, module, loader, tmp_path, KatibReportCallback("val_acc", **options), epochs=2)
    assert rows(katib_db_manager) == []
    state = torch.load(path, weights_only=True)["callbacks"]
    assert any(key.startswith("KatibReportCallback") for key in state)

    trainer = make_trainer(KatibReportCallback("val_acc", **options), max_epochs=4)
    strict = {"weights_only": True} if "weights_only" in signature(trainer.fit).parameters else {}  # Lightning 2.6
    trainer.fit(module, loader, loader, ckpt_path=path, **strict)
    assert [value for _, value in rows(katib_db_manager)] == expected
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_a_metric_that_only_the_first_part_of_a_resumed_run_logged_is_reported(
    katib_db_manager, make_trainer, module, loader, tmp_path
):
    path = interrupted(make_trainer, module, loader, tmp_path, KatibReportCallback("val_acc"), epochs=3)
    make_trainer(KatibReportCallback("val_acc"), max_epochs=4, check_val_every_n_epoch=3).fit(
        module, loader, loader, ckpt_path=path
    )
    assert rows(katib_db_manager) == [("val_acc", "0.3")]


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


def test_two_callbacks_that_report_different_things_stand_in_one_trainer(
    katib_db_manager, make_trainer, module, loader, tmp_path
):
    callbacks = KatibReportCallback("val_acc"), KatibReportCallback("train_loss")
    checkpoint = ModelCheckpoint(str(tmp_path))
    make_trainer(*callbacks, checkpoint, enable_checkpointing=True).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2"), ("train_loss", "0.5")]


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
