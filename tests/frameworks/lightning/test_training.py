"""Every way that a Lightning training goes, in one process: real Trainers, rows read back from the DB manager."""

import contextlib
import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from torch.utils.data import DataLoader

from katib_callbacks import ConfigurationError, KatibReporter
from katib_callbacks.lightning import KatibReportCallback
from katib_callbacks.testing import RecordingSink


def rows(katib_db_manager):
    return [(row.name, row.value) for row in katib_db_manager.metrics()]


class RaisesIn(Callback):
    """Another callback that fails in one hook."""

    def __init__(self, hook, error):
        def fail(*_, **__):
            raise error

        setattr(self, hook, fail)


def test_the_last_validation_is_reported_and_the_sanity_check_is_not(katib_db_manager, make_trainer, module, loader):
    callback = KatibReportCallback({"accuracy": "val_acc", "loss": "train_loss"})
    make_trainer(callback, num_sanity_val_steps=2).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("accuracy", "0.2"), ("loss", "0.5")]
    assert callback.receipt.delivered == 2
    assert callback.receipt.trial_name == katib_db_manager.trial_name


def test_a_float32_arrives_as_its_shortest_decimal(katib_db_manager, make_trainer, module, loader):
    module.val_accuracies = [torch.tensor(0.1), torch.tensor(0.9)]
    make_trainer(KatibReportCallback("val_acc")).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.9")]


def test_history_leaves_out_a_stale_validation(katib_db_manager, make_trainer, module, loader):
    callback = KatibReportCallback(["val_acc", "train_loss"], report="history")
    make_trainer(callback, max_epochs=4, check_val_every_n_epoch=2).fit(module, loader, loader)
    assert rows(katib_db_manager) == [
        ("train_loss", "1"),
        ("val_acc", "0.2"),
        ("train_loss", "0.5"),
        ("train_loss", "0.33333334"),
        ("val_acc", "0.4"),
        ("train_loss", "0.25"),
    ]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_best_may_be_the_last_epoch_and_a_minimum(katib_db_manager, make_trainer, module, loader):
    callback = KatibReportCallback(["val_acc", "train_loss"], report="best", monitor="train_loss", mode="min")
    make_trainer(callback, max_epochs=3).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.3"), ("train_loss", "0.33333334")]


def test_what_the_module_logs_at_the_epochs_end_belongs_to_that_epoch(katib_db_manager, make_trainer, module, loader):
    def on_train_epoch_end():
        module.log("late", float(module.current_epoch))

    module.on_train_epoch_end = on_train_epoch_end
    callback = KatibReportCallback(["train_loss", "late"], report="history")
    make_trainer(callback, max_epochs=2).fit(module, loader)
    assert rows(katib_db_manager) == [("train_loss", "1"), ("late", "0"), ("train_loss", "0.5"), ("late", "1")]


def test_what_a_later_callback_logs_at_the_epochs_end_belongs_to_that_epoch(
    katib_db_manager, make_trainer, module, loader
):
    class Logs(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            self.log("late", float(trainer.current_epoch))

    callback = KatibReportCallback(["train_loss", "late"], report="history")
    make_trainer(callback, Logs()).fit(module, loader)
    assert rows(katib_db_manager) == [("train_loss", "1"), ("late", "0"), ("train_loss", "0.5"), ("late", "1")]


def test_a_metric_logged_on_step_and_epoch_counts_with_its_epochs_value(katib_db_manager, make_trainer, module, loader):
    def training_step(batch, batch_idx):
        module.log("m", float(batch_idx), on_step=True, on_epoch=True)
        return module.layer(batch[0]).mean()

    module.training_step = training_step
    make_trainer(KatibReportCallback(), log_every_n_steps=1).fit(module, loader)
    assert rows(katib_db_manager) == [("m", "0.5")]


def test_max_steps_in_mid_epoch_keeps_the_last_validation(katib_db_manager, make_trainer, module, loader):
    make_trainer(KatibReportCallback("val_acc"), max_epochs=None, max_steps=3).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.1")]


def test_early_stopping_is_a_normal_end(katib_db_manager, make_trainer, module, loader):
    module.val_accuracies = [0.5, 0.25, 0.125, 0.0625]
    stopping = EarlyStopping("val_acc", mode="max", patience=1)
    make_trainer(stopping, KatibReportCallback("val_acc"), max_epochs=4).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.25")]


def test_should_stop_in_mid_epoch_is_a_normal_end(katib_db_manager, make_trainer, module, loader):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    make_trainer(Stop(), KatibReportCallback("val_acc"), max_epochs=4).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.1")]


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_max_time_is_a_normal_end(katib_db_manager, make_trainer, module, loader, interval):
    timer = Timer(duration={"milliseconds": 1}, interval=interval)
    make_trainer(timer, KatibReportCallback("val_acc"), max_epochs=-1).fit(module, loader, loader)
    assert [name for name, _ in rows(katib_db_manager)] == ["val_acc"]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), SystemExit(3), KeyboardInterrupt()])
def test_a_run_that_fails_or_is_interrupted_reports_nothing(katib_db_manager, make_trainer, module, loader, error):
    callback = KatibReportCallback("val_acc")
    trainer = make_trainer(RaisesIn("on_train_epoch_end", error), callback)
    with contextlib.suppress(RuntimeError, SystemExit):  # older releases return after a KeyboardInterrupt
        trainer.fit(module, loader, loader)
    assert trainer.interrupted
    assert rows(katib_db_manager) == []
    assert callback.receipt is None


@pytest.fixture
def harmless_sigterm():
    """Keep the test process alive, should Lightning, which calls this handler too, ever leave the signal alone."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_run_that_gets_sigterm_reports_nothing(harmless_sigterm, katib_db_manager, make_trainer, module, loader):
    class Terminates(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)  # Lightning's own handler has it raise SystemExit

    callback = KatibReportCallback("val_acc")
    trainer = make_trainer(Terminates(), callback)
    with contextlib.suppress(SystemExit):
        trainer.fit(module, loader, loader)
    assert trainer.interrupted
    assert rows(katib_db_manager) == []
    assert callback.receipt is None


def test_a_later_callback_that_fails_in_on_fit_end_leaves_one_report(katib_db_manager, make_trainer, module, loader):
    callback = KatibReportCallback("val_acc")
    with pytest.raises(RuntimeError, match="late"):
        make_trainer(callback, RaisesIn("on_fit_end", RuntimeError("late"))).fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2")]


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end"])
def test_an_earlier_callback_that_fails_at_the_end_keeps_ours_from_reporting(
    katib_db_manager, make_trainer, module, loader, hook
):
    with pytest.raises(RuntimeError, match="early"):
        make_trainer(RaisesIn(hook, RuntimeError("early")), KatibReportCallback("val_acc")).fit(module, loader, loader)
    assert rows(katib_db_manager) == []


def test_a_fit_with_nothing_left_to_do_reports_nothing(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback("val_acc"))
    trainer.fit(module, loader, loader)
    trainer.fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2")]


def test_zero_epochs_report_nothing(katib_db_manager, make_trainer, module, loader):
    make_trainer(KatibReportCallback("val_acc"), max_epochs=0).fit(module, loader, loader)
    assert rows(katib_db_manager) == []


def test_a_continued_fit_reports_again(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback("val_acc"))
    trainer.fit(module, loader, loader)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader, loader)
    assert rows(katib_db_manager) == [("val_acc", "0.2"), ("val_acc", "0.3")]


@pytest.mark.parametrize("mode", ["fast_dev_run", "barebones"])
def test_runs_for_debugging_report_nothing(katib_db_manager, make_trainer, module, loader, mode, caplog):
    options = {mode: True}
    if mode == "barebones":
        options |= {"logger": None, "enable_checkpointing": None, "enable_progress_bar": None}
        options |= {"enable_model_summary": None}
    callback = KatibReportCallback("val_acc")
    make_trainer(callback, **options).fit(module, loader, loader)
    assert rows(katib_db_manager) == []
    assert callback.receipt is None


def test_two_validation_loaders_have_names_with_a_slash(katib_db_manager, make_trainer, module, loader):
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: module.log("val", dataloader_idx / 4)
    make_trainer(KatibReportCallback(["val/dataloader_idx_0", "val/dataloader_idx_1"])).fit(
        module, loader, [loader, DataLoader(loader.dataset, batch_size=8)]
    )
    assert rows(katib_db_manager) == [("val/dataloader_idx_0", "0"), ("val/dataloader_idx_1", "0.25")]


def test_the_last_checkpoint_is_on_disk_before_delivery(katib_db_manager, make_trainer, module, loader, tmp_path):
    found = []

    class Looks(RecordingSink):
        def send(self, trial_name, logs, *, deadline_s):
            found.extend((tmp_path / "checkpoints").glob("last.ckpt"))
            return super().send(trial_name, logs, deadline_s=deadline_s)

    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_on_train_epoch_end=True)
    callback = KatibReportCallback("val_acc", reporter=KatibReporter(sinks=[Looks()]))
    make_trainer(callback, checkpoint, enable_checkpointing=True).fit(module, loader, loader)
    assert [path.name for path in found] == ["last.ckpt"]


def test_best_without_a_mode_raises_when_the_callback_is_made():
    with pytest.raises(ConfigurationError, match="needs mode"):
        KatibReportCallback(report="best", monitor="loss")
