"""Evaluation after training counts, as ``after_training`` says."""

import pytest

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
def test_a_metric_that_only_the_evaluation_shows_is_missed_as_on_missing_says(
    katib_db_manager, make_trainer, module, loader, caplog, on_missing
):
    trainer = make_trainer(KatibReportCallback(["train_loss", "val_acc"], on_missing=on_missing))
    names_after(katib_db_manager, trainer, module, loader)
    assert ("never appeared" in caplog.text) == (on_missing == "warn")
