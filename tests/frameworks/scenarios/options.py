"""The options, as a real training shows them."""

import logging
import re

import pytest

from katib_callbacks import ConfigurationError, KatibReporter, MetricValueError, UnavailableError

NAN = float("nan")


def test_names_come_from_the_environment(driver, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", f"accuracy={driver.score}, {driver.loss}")
    training = driver.trainer(driver.callback())
    training.train()
    assert rows() == [("accuracy", 0.2), (driver.loss, pytest.approx(training.losses[-1]))]


def test_what_is_reported_comes_from_the_environment(driver, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", f"error={driver.score}, {driver.loss}")
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "history")
    training = driver.trainer(driver.callback())
    training.train()
    assert [value for name, value in rows() if name == "error"] == [0.1, 0.2]
    assert [value for name, value in rows() if name == driver.loss] == [pytest.approx(loss) for loss in training.losses]


def test_an_argument_comes_before_the_environment(driver, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", driver.loss)
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "history")
    driver.trainer(driver.callback(driver.score, report="final")).train()
    assert rows() == [(driver.score, 0.2)]


def test_the_best_metric_may_come_from_the_environment(driver, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_REPORT", "best")
    monkeypatch.setenv("KATIB_CALLBACKS_MONITOR", driver.score)
    monkeypatch.setenv("KATIB_CALLBACKS_MODE", "min")
    training = driver.trainer(driver.callback(driver.loss), scores=[0.5, 0.75])
    training.train()
    assert rows() == [(driver.loss, pytest.approx(training.losses[0]))]


def test_a_missing_metric_is_warned_of_early_with_the_nearest_name(driver, rows, warnings_of):
    driver.trainer(driver.callback([driver.misspelt, driver.loss]), epochs=3).train()
    early, final = warnings_of()
    seen = re.fullmatch(
        f"Metric '{driver.misspelt}' has not appeared so far. Seen: (.*). Did you mean '{driver.score}'\\?", early
    )
    assert set(seen[1].split(", ")) - driver.bookkeeping == {driver.score, driver.loss, *driver.others}
    assert final.startswith(f"Metric '{driver.misspelt}' never appeared.")
    assert [name for name, _ in rows()] == [driver.loss]


def test_a_validation_metric_that_is_yet_to_come_is_not_missed(driver, rows, warnings_of):
    driver.trainer(driver.callback(driver.score), epochs=3, validate_every=3).train()
    assert warnings_of() == []
    assert rows() == [(driver.score, 0.1)]


def test_a_value_that_is_older_than_the_model_is_said_with_both_numbers(driver, rows, warnings_of):
    driver.trainer(driver.callback(driver.score), epochs=3, validate_every=2).train()
    assert rows() == [(driver.score, 0.1)]
    [message] = warnings_of()
    assert re.search(f"{driver.score}=0.1 is from (epoch|step) 2 of 3", message)


def test_best_and_history_mean_older_values(driver, rows, warnings_of):
    best = {"report": "best", "monitor": driver.score, "mode": "max"}
    for options in (best, {"report": "history"}):
        driver.trainer(driver.callback(driver.score, **options), epochs=3, validate_every=2).train()
    assert rows() == [(driver.score, 0.1)] * 2
    assert warnings_of() == []


def test_where_nothing_is_kept_the_final_values_are_reported_and_that_is_said(driver, rows, warnings_of):
    driver.trainer(driver.callback(driver.score, report="kept")).train()
    assert rows() == [(driver.score, 0.2)]
    assert warnings_of() == ["No model was kept in this training, so the final values are reported."]


def test_a_missing_metric_raises_after_training_where_it_shall(driver, rows):
    training = driver.trainer(driver.callback([driver.misspelt, driver.loss], on_missing="raise"))
    with pytest.raises(ConfigurationError, match=f"'{driver.misspelt}' never appeared"):
        training.train()
    assert training.epochs == 2
    assert [name for name, _ in rows()] == [driver.loss], "delivered before it raises"


def test_a_missing_metric_may_be_ignored(driver, rows, warnings_of):
    driver.trainer(driver.callback([driver.misspelt, driver.loss], on_missing="ignore"), epochs=3).train()
    assert warnings_of() == []
    assert [name for name, _ in rows()] == [driver.loss]


def test_nan_is_left_out_with_a_warning(driver, rows, warnings_of):
    driver.trainer(driver.callback([driver.score, driver.loss]), scores=[0.5, NAN]).train()
    assert [name for name, _ in rows()] == [driver.loss]
    assert [message for message in warnings_of() if f"{driver.score}=nan" in message]


def test_nan_raises_after_training_where_it_shall(driver, rows):
    training = driver.trainer(driver.callback([driver.score, driver.loss], on_nan="raise"), scores=[0.5, NAN])
    with pytest.raises(MetricValueError, match=f"{driver.score}=nan"):
        training.train()
    assert training.epochs == 2
    assert rows() == []


def test_nan_is_sent_where_it_shall(katib_db_manager, driver):
    driver.trainer(driver.callback(driver.score, on_nan="send"), scores=[0.5, NAN]).train()
    assert [row.value for row in katib_db_manager.metrics()] == ["nan"]


def test_nan_is_never_the_best(driver, rows):
    callback = driver.callback(driver.score, report="best", monitor=driver.score, mode="max")
    driver.trainer(callback, scores=[NAN, 0.5, NAN], epochs=3).train()
    assert rows() == [(driver.score, 0.5)]


@pytest.fixture
def unreachable(katib_db_manager, monkeypatch):
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "0.5")


def test_a_delivery_that_fails_is_a_warning(unreachable, driver, warnings_of):
    callback = driver.callback(driver.score)
    training = driver.trainer(callback)
    training.train()
    assert training.epochs == 2
    assert callback.receipt is None
    (message,) = [message for message in warnings_of() if "MetricsUnavailable" in message]
    assert "127.0.0.1:1" in message


def test_a_delivery_that_fails_raises_after_training_where_it_shall(unreachable, driver):
    training = driver.trainer(driver.callback(driver.score, on_error="raise"))
    with pytest.raises(UnavailableError):
        training.train()
    assert training.epochs == 2


def test_a_reporter_that_was_handed_in_is_used_and_left_open(katib_db_manager, driver, rows):
    with KatibReporter(trial_name="handed-in") as reporter:
        driver.trainer(driver.callback(driver.loss, reporter=reporter)).train()
        reporter.report({"later": 1})
    assert rows() == []
    assert [row.name for row in katib_db_manager.metrics("handed-in")] == [driver.loss, "later"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"report": "last"}, "report must be one of 'final', 'best', 'history'"),
        ({"report": "best"}, "needs monitor"),
        ({"report": "best", "mode": "max"}, "needs monitor"),
        ({"monitor": "loss"}, "belong to report='best'"),
        ({"on_nan": "drop"}, "on_nan must be one of"),
        ({"metrics": []}, "names no metric"),
        ({"metrics": ["loss", "loss"]}, "named twice"),
        ({"metrics": [1]}, "must be a non-empty str"),
    ],
)
def test_wrong_arguments_raise_when_the_callback_is_made(driver, options, words):
    with pytest.raises(ConfigurationError, match=words):
        driver.callback(**options)


@pytest.mark.parametrize(("name", "words"), [("a" * 256, "256 characters"), ("a\0b", "NUL")], ids=["long", "NUL"])
def test_names_that_katib_cannot_hold_raise_when_the_callback_is_made(driver, name, words):
    with pytest.raises(MetricValueError, match=words):
        driver.callback({name: "loss"})


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
def test_wrong_variables_raise_when_the_callback_is_made(driver, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        driver.callback()


def test_the_callbacks_can_be_disabled(driver, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    training = driver.trainer(driver.callback(driver.score))
    training.train()
    assert training.epochs == 2
    assert rows() == []


def test_outside_a_trial_nothing_is_reported_and_said_once(driver, monkeypatch, caplog):
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    callback = driver.callback(driver.score)
    training = driver.trainer(callback)
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        training.train()
        training.evaluate()
    assert callback.receipt is None
    ours = [record for record in caplog.records if record.name.startswith("katib_callbacks")]
    assert [record.levelname for record in ours] == ["INFO"]
    assert "Not in a Katib trial (KATIB_TRIAL_NAME is not set)" in ours[0].getMessage()


@pytest.mark.parametrize("variable", ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
def test_a_worker_that_the_launcher_calls_rank_one_is_silent(driver, rows, monkeypatch, caplog, variable):
    """A trainer of one device takes itself for the only process in each of them."""
    monkeypatch.setenv(variable, "1")
    callback = driver.callback(driver.score)
    training = driver.trainer(callback)
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        training.train()
        training.evaluate()
    assert rows() == []
    assert callback.receipt is None
    assert f"rank 1 ({variable}=" in caplog.text
