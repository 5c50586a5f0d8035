"""How far a training is, as the sinks that show it are told."""

import datetime as dt

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from frameworks.progress import (
    EPOCHS,
    STEPS,
    fractions,
    rounded,
)
from katib_callbacks.lightning import KatibReportCallback


@pytest.fixture
def batches():
    """As many batches an epoch as all frameworks do."""
    x = torch.linspace(0, 1, STEPS).reshape(STEPS, 1)
    return DataLoader(TensorDataset(x, 2 * x), batch_size=1)


class Unsized(IterableDataset):
    """Does not say how long it is."""

    def __iter__(self):
        return iter([(torch.tensor([1.0]), torch.tensor([2.0]))] * STEPS)


def test_limited_batches_count(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)

    make_trainer(callback, max_epochs=2, limit_train_batches=2).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions(4, total=4))


def test_steps_that_end_a_training_in_mid_epoch_count(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)

    make_trainer(callback, max_epochs=100, max_steps=6).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions(6, total=6))


def test_data_without_a_length_count_from_the_second_epoch_on(curve, module, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)

    make_trainer(callback, max_epochs=2).fit(module, DataLoader(Unsized(), batch_size=1))

    assert curve.fractions == [0.0, 0.625, 0.75, 0.875, 0.999, 1.0]


def test_without_a_limit_only_metrics_are_shown_until_the_end(curve, module, batches, make_trainer):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    callback = KatibReportCallback("val_acc", reporter=curve.reporter)

    make_trainer(callback, Stops(), max_epochs=-1).fit(module, batches, batches)

    assert curve.fractions == [None, 1.0]
    assert curve.latest == [{}, {"val_acc": 0.1}, {"val_acc": 0.2}]


def test_time_that_ends_a_training_counts(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)

    make_trainer(callback, max_epochs=-1, max_time=dt.timedelta(seconds=1)).fit(module, batches, batches)

    assert curve.fractions == sorted(curve.fractions)
    assert 0 < curve.fractions[1] < curve.fractions[-1] == 1.0


def test_the_clock_of_an_earlier_training_does_not_count(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)
    trainer = make_trainer(callback, max_epochs=1, max_time=dt.timedelta(hours=1))
    trainer.fit(module, batches, batches)
    (timer,) = (each for each in trainer.callbacks if hasattr(each, "time_remaining"))
    timer._end_time["train"] = timer.start_time() + 3_000  # as if it had taken most of its time
    del curve.told[:]
    trainer.fit_loop.max_epochs = EPOCHS
    trainer.fit(module, batches, batches)

    assert curve.fractions == rounded(fractions(first=STEPS))


def test_a_callback_with_a_method_of_a_timers_name_is_none(curve, module, batches, make_trainer):
    class Watch(Callback):
        time_remaining = 5

    callback = KatibReportCallback(reporter=curve.reporter)
    make_trainer(callback, Watch(), max_epochs=EPOCHS).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions())
