"""How far a training is, as the sinks that show it are told."""

import datetime as dt
import itertools
import threading

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from frameworks.progress import (
    EPOCHS,
    STEPS,
    Gate,
    assert_same_curve,
    assert_trained_beside_a_hanging_server,
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


class LightningGate(Callback):
    def __init__(self, gate):
        self.gate = gate

    def on_train_start(self, *_):
        self.gate.pass_step()

    def on_train_batch_end(self, *_):
        self.gate.pass_step()


def test_the_status_server_sees_the_curve_of_all_frameworks(
    status_server, status_reporter, module, batches, make_trainer
):
    ours = KatibReportCallback("val_acc", reporter=status_reporter)

    make_trainer(ours, LightningGate(Gate(status_server)), max_epochs=EPOCHS).fit(module, batches, batches)

    assert_same_curve(status_server)
    assert status_server.seen[-1].metrics == {"val_acc": "0.3"}
    assert ours.receipt.delivered == 1


def test_the_curve_and_the_metrics_so_far(curve, module, batches, make_trainer):
    callback = KatibReportCallback({"accuracy": "val_acc"}, reporter=curve.reporter)

    make_trainer(callback, max_epochs=EPOCHS).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions())
    assert curve.latest == [{}, {"accuracy": 0.1}, {"accuracy": 0.2}, {"accuracy": 0.3}]
    assert curve.sent == [{"accuracy": 0.3}]


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

    make_trainer(callback, max_epochs=-1, max_time=dt.timedelta(seconds=0.3)).fit(module, batches, batches)

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


def test_a_training_that_stops_early_is_done(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)
    stopping = EarlyStopping("val_acc", mode="min", patience=1)

    make_trainer(callback, stopping, max_epochs=EPOCHS).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions(2 * STEPS))


def test_a_training_that_fails_stays_where_it_was(curve, module, batches, make_trainer):
    class Fails(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("out of memory")

    callback = KatibReportCallback(reporter=curve.reporter)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_trainer(callback, Fails(), max_epochs=EPOCHS).fit(module, batches, batches)

    assert curve.fractions == rounded(fractions(STEPS)[:-1])
    assert curve.sent == []


def test_evaluation_has_no_progress(curve, module, batches, make_trainer):
    trainer = make_trainer(KatibReportCallback(reporter=curve.reporter))
    trainer.validate(module, batches, verbose=False)
    trainer.test(module, batches, verbose=False)

    assert curve.told == []


def test_a_resumed_run_begins_where_the_other_ended(curve, module, batches, make_trainer, tmp_path):
    first = make_trainer(max_epochs=1)
    first.fit(module, batches, batches)
    first.save_checkpoint(tmp_path / "first.ckpt")
    callback = KatibReportCallback(reporter=curve.reporter)

    make_trainer(callback, max_epochs=EPOCHS).fit(module, batches, batches, ckpt_path=str(tmp_path / "first.ckpt"))

    assert curve.fractions == rounded(fractions(first=STEPS))


def test_a_second_fit_begins_anew(curve, module, batches, make_trainer):
    callback = KatibReportCallback(reporter=curve.reporter)
    for _ in range(2):
        make_trainer(callback, max_epochs=1).fit(module, batches, batches)

    assert curve.fractions == [0.0, 0.25, 0.5, 0.75, 0.999, 1.0] * 2


def test_a_sink_that_fails_is_told_nothing_more(curve, module, batches, make_trainer, caplog):
    calls = itertools.count()

    def fail(*_):
        next(calls)
        raise RuntimeError("cannot")

    curve.progress = fail
    callback = KatibReportCallback("val_acc", reporter=curve.reporter)

    make_trainer(callback).fit(module, batches, batches)

    assert next(calls) == 1
    assert curve.sent == [{"val_acc": 0.2}]
    assert [
        record.getMessage() for record in caplog.records if record.name == "katib_callbacks.reporting.progress"
    ] == ["The sink 'Curve' does not show progress: RuntimeError: cannot"]


def test_training_does_not_wait_for_a_server_that_hangs(
    status_server, module, batches, make_trainer, monkeypatch, katib_db_manager
):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    status_server.behave_always("hang")
    seen = []

    class Looks(Callback):
        def on_train_end(self, trainer, pl_module):
            threads = [t.name for t in threading.enumerate() if t.name == "katib-callbacks-trainjob"]
            seen.append((status_server.begun, threads))

    callback = KatibReportCallback("val_acc")
    make_trainer(callback, Looks(), max_epochs=20).fit(module, batches, batches)

    ((begun, threads),) = seen
    assert begun <= 1, "no step has waited for the one request, which is still under way"
    assert threads == ["katib-callbacks-trainjob"]
    assert katib_db_manager.latest() == {"val_acc": 2.0}
    assert_trained_beside_a_hanging_server(status_server, callback.receipt)


def test_autolog_reports_a_trainjob_that_is_no_trial(
    autolog, status_server, module, batches, make_trainer, monkeypatch
):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    autolog(metrics="val_acc")

    make_trainer().fit(module, batches, batches)

    assert status_server.seen[-1].metrics == {"val_acc": "0.2"}
    assert status_server.percentages[-1] == 100


def test_what_an_evaluation_adds_stands_beside_the_rest(status_server, module, batches, make_trainer, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "trainjob")
    trainer = make_trainer(KatibReportCallback(["val_acc", "test_acc"], on_missing="ignore"))
    trainer.fit(module, batches, batches)
    trainer.test(module, batches, verbose=False)

    assert status_server.seen[-1].metrics == {"val_acc": "0.2", "test_acc": "0.75"}
    assert status_server.percentages[-1] == 100
