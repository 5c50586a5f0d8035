"""Evaluation after training counts, as ``after_training`` says."""

import subprocess
import sys
from logging import INFO

import pytest

from katib_callbacks import ConfigurationError
from katib_callbacks.lightning import KatibReportCallback


def names_after(katib_db_manager, trainer, module, loader, *, fit_validates=False):
    trainer.fit(module, loader, loader if fit_validates else None)
    module.val_accuracies = [0.5] * 9
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    return [(row.name, row.value) for row in katib_db_manager.metrics()]


def test_what_training_never_produced_is_added(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback(["train_loss", "val_acc", "test_acc"], on_missing="ignore"))
    rows = names_after(katib_db_manager, trainer, module, loader)
    assert rows == [("train_loss", "0.5"), ("val_acc", "0.5"), ("test_acc", "0.75")]


def test_what_training_produced_is_not_sent_again(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback("val_acc"))
    assert names_after(katib_db_manager, trainer, module, loader, fit_validates=True) == [("val_acc", "0.2")]


def test_a_second_evaluation_does_not_send_it_again(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback("val_acc", on_missing="ignore"))
    names_after(katib_db_manager, trainer, module, loader)
    rows = names_after(katib_db_manager, trainer, module, loader)
    assert rows == [("val_acc", "0.5")]


def test_update_sends_all_again(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback(["val_acc"], after_training="update"))
    rows = names_after(katib_db_manager, trainer, module, loader, fit_validates=True)
    assert rows == [("val_acc", "0.2"), ("val_acc", "0.5")]


def test_ignore_sends_nothing_more(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(
        KatibReportCallback(["train_loss", "test_acc"], after_training="ignore", on_missing="ignore")
    )
    assert names_after(katib_db_manager, trainer, module, loader) == [("train_loss", "0.5")]


def test_without_names_only_validation_counts(katib_db_manager, make_trainer, module, loader, caplog):
    trainer = make_trainer(KatibReportCallback())
    rows = names_after(katib_db_manager, trainer, module, loader)
    assert rows == [("train_loss", "0.5"), ("val_acc", "0.5")]
    assert "No metrics were named" in caplog.text


@pytest.mark.parametrize("on_missing", ["warn", "ignore"])
def test_a_metric_that_only_the_evaluation_shows_is_not_missed(
    katib_db_manager, make_trainer, module, loader, caplog, on_missing
):
    trainer = make_trainer(KatibReportCallback(["train_loss", "val_acc", "test_acc"], on_missing=on_missing))
    trainer.fit(module, loader)
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    assert [row.name for row in katib_db_manager.metrics()] == ["train_loss", "val_acc", "test_acc"]
    assert not [record for record in caplog.records if record.name.startswith("katib") and record.levelno > INFO]


def test_what_there_is_has_been_delivered_when_a_metric_of_the_evaluation_is_missed(
    katib_db_manager, make_trainer, module, loader
):
    with pytest.raises(ConfigurationError, match="'test_acc' never appeared"):
        make_trainer(KatibReportCallback(["val_acc", "test_acc"], on_missing="raise")).fit(module, loader, loader)
    assert katib_db_manager.latest() == {"val_acc": pytest.approx(0.2)}


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
