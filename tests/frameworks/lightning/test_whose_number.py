"""Whose number is reported, and which rows there are, where Lightning alone has a way to them."""

import subprocess
import sys
from inspect import signature

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from katib_callbacks.lightning import KatibReportCallback

SCORES = [0.1, 0.9, 0.2, 0.3]
BEST = {"report": "best", "monitor": "val_acc", "mode": "max"}


@pytest.fixture
def rows(katib_db_manager):
    return lambda: [(row.name, round(float(row.value), 6)) for row in katib_db_manager.metrics()]


@pytest.fixture
def warned(caplog):
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("katib_callbacks") and record.levelname == "WARNING"
    ]


@pytest.fixture
def scripted(module):
    """Let the n-th validation of a fit show the n-th of some values, whatever the epoch."""

    def script(*scores):
        left = iter(scores)

        def on_validation_epoch_start():
            module.score = 99.0 if module.trainer.sanity_checking else next(left)

        module.on_validation_epoch_start = on_validation_epoch_start
        module.validation_step = lambda batch, batch_idx: module.log("val_acc", module.score)
        return module

    return script


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(1), torch.ones(1)


# -- each validation makes a row -----------------------------------------------------------------------------------


WAYS = {
    "four in an epoch": {"max_epochs": 1, "val_check_interval": 0.25},
    "endless data": {"max_epochs": -1, "max_steps": 16, "val_check_interval": 4, "check_val_every_n_epoch": None},
    "two in each of two epochs": {"max_epochs": 2, "val_check_interval": 0.5},
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    return request.param


@pytest.fixture
def train(make_trainer, scripted, loader):
    def run(*callbacks, data=None, scores=SCORES, path=None, **options):
        data = DataLoader(loader.dataset, batch_size=2) if data is None else data  # four batches an epoch
        make_trainer(*callbacks, **options).fit(scripted(*scores), data, loader, ckpt_path=path)

    return run


def data_of(way):
    return DataLoader(Endless(), batch_size=4) if way.get("max_epochs") == -1 else None


@pytest.mark.parametrize(("options", "expected"), [({"report": "history"}, SCORES), (BEST, [0.9]), ({}, [0.3])])
def test_each_validation_makes_a_row(katib_db_manager, rows, warned, train, way, options, expected):
    train(KatibReportCallback("val_acc", **options), data=data_of(way), **way)
    assert rows() == [("val_acc", value) for value in expected]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))
    assert warned() == []


def test_the_trainings_own_metrics_stand_in_the_last_row_of_their_epoch(rows, train):
    train(KatibReportCallback(["val_acc", "train_loss"], report="history"), max_epochs=2, val_check_interval=0.5)
    assert rows() == [
        ("val_acc", 0.1),
        ("val_acc", 0.9),
        ("train_loss", 1.0),
        ("val_acc", 0.2),
        ("val_acc", 0.3),
        ("train_loss", 0.5),
    ]


def test_a_validation_before_an_epochs_end_and_the_epochs_end_are_two_rows(rows, warned, train):
    train(KatibReportCallback(["val_acc", "train_loss"], report="history"), max_epochs=1, val_check_interval=3)
    assert rows() == [("val_acc", 0.1), ("train_loss", 1.0)]


def test_a_metric_of_steps_and_epochs_is_the_epochs_mean_also_where_validations_come_between(rows, train, module):
    def training_step(batch, batch_idx):
        module.log("loss", float(batch_idx), on_step=True, on_epoch=True)
        return module.layer(batch[0]).sum()

    module.training_step = training_step
    train(KatibReportCallback(["val_acc", "loss"], report="history"), max_epochs=1, val_check_interval=0.25)
    assert rows() == [*(("val_acc", value) for value in SCORES), ("loss", 1.5)]


def test_epochs_whose_validation_shows_nothing_make_rows_also_where_it_writes_a_checkpoint(
    rows, make_trainer, module, loader, keeping
):
    module.validation_step = lambda batch, batch_idx: None
    callbacks = (
        KatibReportCallback("train_loss", report="history"),
        keeping(monitor=None, save_on_train_epoch_end=False),
    )
    make_trainer(*callbacks, max_epochs=2, enable_checkpointing=True).fit(module, loader, loader)
    assert rows() == [("train_loss", 1.0), ("train_loss", 0.5)]


def test_a_number_that_is_set_by_hand_counts_each_time(rows, train):
    class Sets(Callback):
        def on_train_epoch_end(self, trainer, _):
            trainer.callback_metrics["n"] = [3, 3, 2, 2][trainer.current_epoch]

    for place in (0, 1):
        callbacks = [KatibReportCallback("n", report="history")]
        callbacks.insert(place, Sets())
        train(*callbacks, max_epochs=4)
    assert rows() == [("n", value) for value in [3, 3, 2, 2] * 2]


# -- what is old is said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"max_epochs": 1, "val_check_interval": 3}, "val_acc=0.1 is from step 3 of 4"),
        ({"max_epochs": -1, "max_steps": 6}, "val_acc=0.1 is from epoch 1 of 2"),
    ],
)
def test_a_value_that_is_older_than_the_model_is_said_with_both_numbers(rows, warned, train, options, where):
    train(KatibReportCallback({"val_acc": "val_acc"}), **options)
    assert rows() == [("val_acc", 0.1)]
    [message] = warned()
    assert where in message


def test_a_value_that_is_older_than_the_model_that_is_kept_is_said(rows, warned, train, keeping):
    train(
        KatibReportCallback(["val_acc", "train_loss"], report="kept"),
        keeping(monitor="train_loss", mode="min", save_on_train_epoch_end=True),
        scores=[0.5],
        max_epochs=3,
        check_val_every_n_epoch=2,
        enable_checkpointing=True,
    )
    assert rows() == [("val_acc", 0.5), ("train_loss", 0.333333)]
    [message] = warned()
    assert "val_acc=0.5 is from epoch 2, the model from 3" in message


# -- a metric that is yet to come ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ptl/val_loss", "metrics/val_acc", "dev_acc"])
def test_a_metric_of_a_validation_that_has_not_run_is_not_missed(rows, warned, make_trainer, module, loader, name):
    module.validation_step = lambda batch, batch_idx: module.log(name, 0.5)
    make_trainer(KatibReportCallback(name), max_epochs=5, check_val_every_n_epoch=5).fit(module, loader, loader)
    assert rows() == [(name, 0.5)]
    assert warned() == []


def test_a_metric_of_the_whole_epoch_is_not_missed_at_the_validations_before_its_end(rows, warned, train):
    train(KatibReportCallback(["val_acc", "train_loss"]), max_epochs=1, val_check_interval=0.25)
    assert rows() == [("val_acc", 0.3), ("train_loss", 1.0)]
    assert warned() == []


def test_a_metric_that_a_validation_did_not_show_is_missed_whatever_its_name(katib_db_manager, warned, train):
    train(KatibReportCallback(["dev_acc", "val_acc"]), max_epochs=4)
    assert [message.partition(".")[0] for message in warned()] == [
        "Metric 'dev_acc' has not appeared so far",
        "Metric 'dev_acc' never appeared",
    ]


NEVER_EVALUATED = """
import logging, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "tests/frameworks/lightning")
from conftest import DATA, DataLoader, TinyModule, Trainer
from katib_callbacks.lightning import KatibReportCallback
loader = DataLoader(DATA, batch_size=4)
callback = KatibReportCallback(["val_acc", "test_acc"])
options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **options).fit(TinyModule(), loader, loader)
print("trained", file=sys.stderr, flush=True)
"""


def test_a_metric_that_no_evaluation_brought_is_said_when_the_process_ends(katib_db_manager):
    run = subprocess.run(
        [sys.executable, "-c", NEVER_EVALUATED], capture_output=True, text=True, timeout=240, check=True
    )
    during, after = run.stderr.split("trained")
    assert "never appeared" not in during
    assert "Metric 'test_acc' never appeared. Seen: train_loss, val_acc." in after
    assert katib_db_manager.latest() == {"val_acc": pytest.approx(0.1)}


# -- the model that is kept ----------------------------------------------------------------------------------------


@pytest.fixture
def keeping(tmp_path):
    def make(**options):
        # As text: the oldest Lightning writes the folder into the checkpoint as it is given, and torch loads no Path.
        defaults = {"dirpath": str(tmp_path / "kept"), "monitor": "val_acc", "mode": "max", "filename": "{step}"}
        return ModelCheckpoint(**(defaults | options))

    return make


def test_the_row_of_the_best_checkpoint_that_an_epochs_end_writes_is_reported(rows, warned, train, keeping):
    checkpoint = keeping(save_on_train_epoch_end=True)
    train(
        KatibReportCallback(["val_acc", "train_loss"], report="kept"),
        checkpoint,
        max_epochs=4,
        enable_checkpointing=True,
    )
    assert torch.load(checkpoint.best_model_path, weights_only=True)["global_step"] == 8
    assert rows() == [("val_acc", 0.9), ("train_loss", 0.5)]
    assert warned() == []


@pytest.mark.parametrize("is_weights_only", [False, True])
@pytest.mark.parametrize(
    ("scores", "options", "loss"),
    [
        (SCORES, {"save_on_train_epoch_end": False}, 0.5),
        ([0.9, 0.1, 0.2, 0.3], {"save_on_train_epoch_end": False}, 1.0),
        ([0.9, 0.1], {}, 0.5),  # every second epoch, whose validation saves
    ],
)
def test_a_model_that_a_validation_saves_at_an_epochs_end_has_that_epochs_training_metrics(
    rows, warned, train, keeping, scores, options, loss, is_weights_only
):
    class LogsLater(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.log("late", float(trainer.current_epoch))

    train(
        KatibReportCallback(["val_acc", "train_loss", "late"], report="kept"),
        LogsLater(),
        keeping(save_weights_only=is_weights_only, **options),
        scores=scores,
        max_epochs=4,
        check_val_every_n_epoch=4 // len(scores),
        enable_checkpointing=True,
    )
    assert rows() == [("val_acc", 0.9), ("train_loss", loss), ("late", 1 / loss - 1)]
    assert warned() == []


def test_the_row_of_the_best_checkpoint_among_several_validations_is_reported(rows, train, keeping, way):
    checkpoint = keeping(save_top_k=2)
    train(
        KatibReportCallback("val_acc", report="kept"), checkpoint, data=data_of(way), enable_checkpointing=True, **way
    )
    assert float(checkpoint.best_model_score) == pytest.approx(0.9)
    assert rows() == [("val_acc", 0.9)]


def test_a_better_row_that_was_not_saved_is_not_that_of_the_kept_model(rows, train, keeping):
    callback = KatibReportCallback(["val_acc", "train_loss"], report="kept")
    train(callback, keeping(every_n_epochs=3), max_epochs=4, enable_checkpointing=True)
    assert rows() == [("val_acc", 0.2), ("train_loss", round(1 / 3, 6))]


if "enable_version_counter" in signature(ModelCheckpoint).parameters:

    def test_the_kept_models_row_is_that_of_its_file_also_where_the_file_keeps_its_name(rows, train, keeping):
        checkpoint = keeping(filename="best", enable_version_counter=False)
        callback = KatibReportCallback("val_acc", report="kept")
        train(callback, checkpoint, scores=[0.3, 0.1, 0.5, 0.4], max_epochs=4, enable_checkpointing=True)
        assert rows() == [("val_acc", 0.5)]


@pytest.mark.parametrize(("losses", "best"), [([5.0, 1.0, 4.0, 3.0], 1.0), ([5.0, 4.0, 1.0, 3.0], 1.0)])
def test_a_model_that_is_saved_in_mid_epoch_has_the_score_that_it_was_saved_for(
    rows, warned, make_trainer, module, loader, keeping, losses, best
):
    def training_step(batch, batch_idx):
        module.log("loss", losses[module.global_step])
        return module.layer(batch[0]).sum()

    module.training_step = training_step
    checkpoint = keeping(monitor="loss", mode="min", every_n_train_steps=1)
    callback = KatibReportCallback("loss", report="kept")
    make_trainer(callback, checkpoint, max_epochs=2, limit_val_batches=0, enable_checkpointing=True).fit(module, loader)
    assert rows() == [("loss", best)]
    assert warned() == []


def test_the_first_of_several_checkpoints_with_a_monitor_decides_and_that_is_said(
    rows, warned, train, keeping, tmp_path
):
    checkpoints = [
        ModelCheckpoint(str(tmp_path / "last")),
        keeping(),
        keeping(monitor="train_loss", mode="min", filename="{step}-loss"),
    ]
    train(KatibReportCallback("val_acc", report="kept"), *checkpoints, max_epochs=4, enable_checkpointing=True)
    assert rows() == [("val_acc", 0.9)]
    [message] = warned()
    assert "'val_acc'" in message


def test_a_checkpoint_without_a_monitor_keeps_no_model(rows, warned, train):
    train(KatibReportCallback("val_acc", report="kept"), ModelCheckpoint(), max_epochs=4, enable_checkpointing=True)
    assert rows() == [("val_acc", 0.3)]
    [message] = warned()
    assert message == "No model was kept in this training, so the final values are reported."


# -- rows belong to a trial ----------------------------------------------------------------------------------------


class Killed(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, _):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("killed")


OPTIONS = {"history": {"report": "history"}, "best": BEST, "kept": {"report": "kept"}, "final": {}}


@pytest.mark.parametrize(("report", "expected"), [("history", [0.1, 0.9, 0.2, 0.3]), ("best", [0.9]), ("kept", [0.9])])
@pytest.mark.parametrize("loaded", ["last.ckpt", "best"])
def test_the_rows_of_the_same_trial_go_on_after_a_restart(
    katib_db_manager, rows, train, keeping, tmp_path, report, expected, loaded
):
    checkpoint = keeping(save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        train(
            KatibReportCallback("val_acc", **OPTIONS[report]),
            Killed(2),
            checkpoint,
            scores=SCORES[:2],
            max_epochs=4,
            enable_checkpointing=True,
        )
    path = checkpoint.best_model_path if loaded == "best" else tmp_path / "kept" / loaded
    callbacks = KatibReportCallback("val_acc", **OPTIONS[report]), keeping(save_last=True)
    train(*callbacks, path=path, scores=SCORES[2:], max_epochs=4, enable_checkpointing=True)
    assert rows() == [("val_acc", value) for value in expected]
