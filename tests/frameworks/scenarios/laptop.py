"""Where nothing is sent: outside a trial, and where everything is turned off. And what is said of it."""

import logging

import pytest

from katib_callbacks import ConfigurationError


@pytest.fixture
def no_trial(rows, monkeypatch):
    """Run the test outside a trial, beside a DB manager that would take what came nevertheless."""
    monkeypatch.delenv("KATIB_TRIAL_NAME")


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("katib_callbacks")]


def test_outside_a_trial_a_metric_that_never_appears_is_warned_of_as_in_one(driver, rows, no_trial, caplog):
    driver.trainer(driver.callback([driver.misspelt, driver.loss]), epochs=3).train()

    (place, early, final) = messages(caplog)
    assert place.startswith("Not in a Katib trial (KATIB_TRIAL_NAME is not set)")
    assert early.startswith(f"Metric '{driver.misspelt}' has not appeared so far. Seen: ")
    assert final.startswith(f"Metric '{driver.misspelt}' never appeared. Seen: ")
    assert early.endswith(f"Did you mean '{driver.score}'?")
    assert rows() == []


def test_outside_a_trial_a_missing_metric_raises_where_that_is_asked_for(driver, rows, no_trial):
    training = driver.trainer(driver.callback(driver.misspelt, on_missing="raise"))

    with pytest.raises(ConfigurationError, match=f"Metric '{driver.misspelt}' never appeared"):
        training.train()
    assert training.epochs == 2
    assert rows() == []


@pytest.mark.parametrize("is_named", [True, False])
def test_outside_a_trial_nothing_is_warned_of_where_nothing_is_wrong(driver, rows, no_trial, caplog, is_named):
    callback = driver.callback(driver.score if is_named else None)
    driver.trainer(callback).train()

    assert callback.receipt is None
    assert [message for message in messages(caplog) if not message.startswith("Not in a Katib trial")] == []
    assert rows() == []


def test_disabled_no_other_variable_and_no_file_is_read(driver, rows, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    for name, value in {
        "METRICS": "a,",
        "REPORT": "nonsense",
        "TIMEOUT_S": "soon",
        "TLS_CA": "/there/is/no/such/file",
        "TOKEN_PATH": "/nor/this",
        "SINKS": "nowhere",
        "REPROT": "unknown",
    }.items():
        monkeypatch.setenv(f"KATIB_CALLBACKS_{name}", value)
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "not an address")
    training = driver.trainer(driver.callback(driver.misspelt, on_missing="raise"))
    training.train()

    assert training.epochs == 2
    assert messages(caplog) == ["KATIB_CALLBACKS_DISABLE is set: nothing will be reported."]


@pytest.mark.parametrize("is_trial", [True, False])
def test_several_trainings_with_autolog_say_each_thing_once(autolog, driver, rows, monkeypatch, caplog, is_trial):
    if not is_trial:
        monkeypatch.delenv("KATIB_TRIAL_NAME")
    caplog.set_level(logging.INFO)
    autolog(metrics=[driver.misspelt, driver.score])
    for _ in range(3):
        driver.trainer(epochs=3).train()

    said = [message for message in messages(caplog) if not message.startswith("Reported ")]
    assert len(said) == len(set(said)) == (2 if is_trial else 1)
    assert rows() == [(driver.score, 0.3)] * 3 * is_trial


def test_several_trainings_with_autolog_and_no_names_are_told_of_once(autolog, driver, rows, caplog):
    autolog()
    for _ in range(3):
        driver.trainer().train()

    (message,) = messages(caplog)
    assert message.startswith("No metrics were named, so all are reported: ")
    assert len(rows()) % 3 == 0


def test_a_misspelt_argument_blames_the_public_class(driver):
    with pytest.raises(TypeError, match=r"^KatibReportCallback\(\) got .* 'metric'; did you mean 'metrics'\?$"):
        driver.callback(metric=driver.score)
