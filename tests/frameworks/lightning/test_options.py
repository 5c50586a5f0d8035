"""The options, as a real training shows them."""

import logging

import pytest

from katib_callbacks import ConfigurationError, MetricValueError, UnavailableError
from katib_callbacks.lightning import KatibReportCallback

NAN = float("nan")


def test_names_come_from_the_environment(katib_db_manager, make_trainer, module, loader, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "accuracy=val_acc, train_loss")
    make_trainer(KatibReportCallback()).fit(module, loader, loader)
    assert [row.name for row in katib_db_manager.metrics()] == ["accuracy", "train_loss"]


def test_an_argument_comes_before_the_environment(katib_db_manager, make_trainer, module, loader, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "train_loss")
    make_trainer(KatibReportCallback("val_acc")).fit(module, loader, loader)
    assert [row.name for row in katib_db_manager.metrics()] == ["val_acc"]


def test_a_missing_metric_is_warned_of_early_with_the_nearest_name(
    katib_db_manager, make_trainer, module, loader, caplog
):
    make_trainer(KatibReportCallback(["val_accuracy", "train_loss"]), max_epochs=3).fit(module, loader, loader)
    early, final = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert early == (
        "Metric 'val_accuracy' has not appeared so far. Seen: train_loss, val_acc. Did you mean 'val_acc'?"
    )
    assert final.startswith("Metric 'val_accuracy' never appeared.")
    assert [row.name for row in katib_db_manager.metrics()] == ["train_loss"]


def test_a_validation_metric_that_is_yet_to_come_is_not_missed(katib_db_manager, make_trainer, module, loader, caplog):
    make_trainer(KatibReportCallback("val_acc"), check_val_every_n_epoch=2).fit(module, loader, loader)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_missing_metric_raises_after_training_where_it_shall(katib_db_manager, make_trainer, module, loader):
    trainer = make_trainer(KatibReportCallback("val_accuracy", on_missing="raise"))
    with pytest.raises(ConfigurationError, match="'val_accuracy' never appeared"):
        trainer.fit(module, loader, loader)
    assert trainer.current_epoch == 2
    assert katib_db_manager.metrics() == []


def test_nan_is_left_out_with_a_warning(katib_db_manager, make_trainer, module, loader, caplog):
    module.val_accuracies = [0.5, NAN]
    make_trainer(KatibReportCallback(["val_acc", "train_loss"])).fit(module, loader, loader)
    assert [row.name for row in katib_db_manager.metrics()] == ["train_loss"]
    assert "val_acc=nan" in caplog.text


def test_nan_raises_after_training_where_it_shall(katib_db_manager, make_trainer, module, loader):
    module.val_accuracies = [0.5, NAN]
    with pytest.raises(MetricValueError, match="val_acc=nan"):
        make_trainer(KatibReportCallback(["val_acc", "train_loss"], on_nan="raise")).fit(module, loader, loader)
    assert katib_db_manager.metrics() == []


def test_nan_is_sent_where_it_shall(katib_db_manager, make_trainer, module, loader):
    module.val_accuracies = [0.5, NAN]
    make_trainer(KatibReportCallback("val_acc", on_nan="send")).fit(module, loader, loader)
    assert [row.value for row in katib_db_manager.metrics()] == ["nan"]


def test_nan_is_never_the_best(katib_db_manager, make_trainer, module, loader):
    module.val_accuracies = [NAN, 0.5, NAN]
    callback = KatibReportCallback("val_acc", report="best", monitor="val_acc", mode="max")
    make_trainer(callback, max_epochs=3).fit(module, loader, loader)
    assert [row.value for row in katib_db_manager.metrics()] == ["0.5"]


def test_a_delivery_that_fails_is_a_warning(make_trainer, module, loader, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "0.5")
    callback = KatibReportCallback("val_acc")
    make_trainer(callback).fit(module, loader, loader)
    assert callback.receipt is None
    assert "MetricsUnavailable" in caplog.text


def test_a_delivery_that_fails_raises_where_it_shall(make_trainer, module, loader, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "0.5")
    with pytest.raises(UnavailableError):
        make_trainer(KatibReportCallback("val_acc", on_error="raise")).fit(module, loader, loader)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"report": "last"}, "report must be one of 'final', 'best', 'history'"),
        ({"report": "best"}, "needs monitor"),
        ({"report": "best", "monitor": "val_acc"}, "needs mode"),
        ({"monitor": "val_acc"}, "belong to report='best'"),
        ({"on_nan": "drop"}, "on_nan must be one of"),
        ({"metrics": []}, "names no metric"),
        ({"metrics": ["val_acc", "val_acc"]}, "named twice"),
        ({"metrics": [1]}, "must be a non-empty str"),
        ({"metrics": {"a" * 256: "val_acc"}}, "256 characters"),
        ({"metrics": {"a\0b": "val_acc"}}, "NUL"),
    ],
)
def test_wrong_arguments_raise_when_the_callback_is_made(options, words):
    with pytest.raises(ValueError, match=words):
        KatibReportCallback(**options)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KATIB_CALLBACKS_REPORT", "last"),
        ("KATIB_CALLBACKS_ON_NAN", "drop"),
        ("KATIB_CALLBACKS_TIMEOUT_S", "soon"),
        ("KATIB_CALLBACKS_DISABLE", "perhaps"),
        ("KATIB_DB_MANAGER_ADDRESS", "katib-db-manager"),
    ],
)
def test_wrong_variables_raise_when_the_callback_is_made(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        KatibReportCallback()


def test_the_callbacks_can_be_disabled(katib_db_manager, make_trainer, module, loader, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    make_trainer(KatibReportCallback("val_acc")).fit(module, loader, loader)
    assert katib_db_manager.metrics() == []
