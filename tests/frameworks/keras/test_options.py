"""The options, as a real training shows them."""

import logging

import pytest

from katib_callbacks import ConfigurationError, KatibReporter, MetricValueError, UnavailableError
from katib_callbacks.keras import KatibReportCallback

NAN = float("nan")


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_options_come_from_the_environment(rows, fit, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "error=val_mae, loss")
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "history")
    history = fit(KatibReportCallback())
    pairs = zip(history["val_mae"], history["loss"], strict=True)
    assert rows() == [row for error, loss in pairs for row in (("error", error), ("loss", loss))]


def test_an_argument_comes_before_the_environment(rows, fit, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "loss")
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "history")
    history = fit(KatibReportCallback("val_mae", report="final"))
    assert rows() == [("val_mae", history["val_mae"][-1])]


def test_the_best_metric_may_come_from_the_environment(rows, fit, shows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "best")
    monkeypatch.setenv("KATIB_CALLBACKS_MONITOR", "score")
    monkeypatch.setenv("KATIB_CALLBACKS_MODE", "min")
    history = fit(shows(score=[0.5, 0.75]), KatibReportCallback("loss"))
    assert rows() == [("loss", history["loss"][0])]


def test_a_missing_metric_is_warned_of_early_with_the_nearest_name(rows, fit, caplog):
    fit(KatibReportCallback(["val_meae", "loss"]), epochs=3)
    early, final = warnings_in(caplog)
    assert early == (
        "Metric 'val_meae' has not appeared so far. Seen: loss, mae, val_loss, val_mae. Did you mean 'val_mae'?"
    )
    assert final.startswith("Metric 'val_meae' never appeared.")
    assert [name for name, _ in rows()] == ["loss"]


def test_a_validation_metric_that_is_yet_to_come_is_not_missed(rows, fit, caplog):
    fit(KatibReportCallback("val_loss"), epochs=3, validation_freq=3)
    assert warnings_in(caplog) == []
    assert [name for name, _ in rows()] == ["val_loss"]


def test_a_missing_metric_raises_after_training_where_it_shall(rows, fit, shows):
    trained = shows(score=[1, 2])
    with pytest.raises(ConfigurationError, match="'acc' never appeared"):
        fit(trained, KatibReportCallback(["acc", "loss"], on_missing="raise"))
    assert trained.params["epochs"] == 2
    assert [name for name, _ in rows()] == ["loss"], "delivered before it raises"


def test_a_missing_metric_may_be_ignored(rows, fit, caplog):
    fit(KatibReportCallback(["acc", "loss"], on_missing="ignore"), epochs=3)
    assert warnings_in(caplog) == []
    assert [name for name, _ in rows()] == ["loss"]


def test_nan_is_left_out_with_a_warning(rows, fit, shows, caplog):
    fit(shows(score=[0.5, NAN]), KatibReportCallback(["score", "loss"]))
    assert [name for name, _ in rows()] == ["loss"]
    assert "score=nan" in caplog.text


def test_nan_raises_after_training_where_it_shall(rows, fit, shows):
    with pytest.raises(MetricValueError, match="score=nan"):
        fit(shows(score=[0.5, NAN]), KatibReportCallback(["score", "loss"], on_nan="raise"))
    assert rows() == []


def test_nan_is_sent_where_it_shall(katib_db_manager, fit, shows):
    fit(shows(score=[0.5, NAN]), KatibReportCallback("score", on_nan="send"))
    assert [row.value for row in katib_db_manager.metrics()] == ["nan"]


def test_nan_is_never_the_best(rows, fit, shows):
    callback = KatibReportCallback("score", report="best", monitor="score", mode="max")
    fit(shows(score=[NAN, 0.5, NAN]), callback, epochs=3)
    assert rows() == [("score", 0.5)]


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "0.5")


def test_a_delivery_that_fails_is_a_warning(unreachable, fit, caplog):
    callback = KatibReportCallback("loss")
    fit(callback)
    assert callback.receipt is None
    assert "MetricsUnavailable" in caplog.text


def test_a_delivery_that_fails_raises_where_it_shall(unreachable, fit):
    with pytest.raises(UnavailableError):
        fit(KatibReportCallback("loss", on_error="raise"))


def test_a_reporter_that_was_handed_in_is_used_and_left_open(katib_db_manager, rows, fit):
    with KatibReporter(trial_name="handed-in") as reporter:
        fit(KatibReportCallback("loss", reporter=reporter))
        reporter.report({"later": 1})
    assert rows() == []
    assert [row.name for row in katib_db_manager.metrics("handed-in")] == ["loss", "later"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"report": "last"}, "report must be one of 'final', 'best', 'history'"),
        ({"report": "best", "monitor": "loss"}, "needs mode"),
        ({"monitor": "loss"}, "belong to report='best'"),
        ({"metrics": []}, "names no metric"),
    ],
)
def test_wrong_arguments_raise_when_the_callback_is_made(options, words):
    with pytest.raises(ConfigurationError, match=words):
        KatibReportCallback(**options)


def test_the_callbacks_can_be_disabled(rows, fit, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    fit(KatibReportCallback("loss"))
    assert rows() == []
