"""Evaluations after training, in frameworks that name what they evaluate: they count as ``after_training`` says."""

import pytest

from katib_callbacks import ConfigurationError


def test_what_training_never_produced_is_added(driver, rows):
    names = [driver.loss, driver.score, driver.tested]
    training = driver.trainer(driver.callback(names, on_missing="ignore"), validate_every=None)
    training.train()
    loss = (driver.loss, pytest.approx(training.losses[-1]))
    assert rows() == [loss]
    training.evaluate()
    assert rows() == [loss, (driver.score, 0.1)]
    training.test()
    assert [name for name, _ in rows()] == names


def test_what_training_produced_is_not_sent_again(driver, rows):
    training = driver.trainer(driver.callback([driver.score, driver.loss]))
    training.train()
    training.evaluate()
    assert rows() == [(driver.score, 0.2), (driver.loss, pytest.approx(training.losses[-1]))]


def test_a_second_evaluation_does_not_send_it_again(driver, rows):
    training = driver.trainer(driver.callback(driver.score, on_missing="ignore"), validate_every=None)
    training.train()
    training.evaluate()
    training.evaluate()
    assert rows() == [(driver.score, 0.1)]


@pytest.mark.parametrize(
    ("after_training", "expected"), [("update", [0.2, 0.3, 0.4]), ("ignore", [0.2]), ("missing", [0.2])]
)
def test_after_training_says_what_is_sent_again(driver, rows, after_training, expected):
    training = driver.trainer(driver.callback(driver.score, after_training=after_training))
    training.train()
    training.evaluate()
    training.evaluate()
    assert rows() == [(driver.score, value) for value in expected]


def test_where_evaluations_are_ignored_what_is_missing_stays_so(driver, rows):
    callback = driver.callback([driver.loss, driver.tested], after_training="ignore", on_missing="ignore")
    training = driver.trainer(callback)
    training.train()
    training.evaluate()
    training.test()
    assert [name for name, _ in rows()] == [driver.loss]


def test_without_names_an_evaluation_counts_and_a_test_does_not(driver, rows, warnings_of):
    training = driver.trainer(driver.callback(), validate_every=None)
    training.train()
    during = len(rows())
    training.test()
    assert len(rows()) == during
    training.evaluate()
    assert driver.score in [name for name, _ in rows()[during:]]
    assert [message for message in warnings_of() if "No metrics were named" in message]


def test_a_test_counts_where_it_is_named(driver, rows):
    training = driver.trainer(driver.callback([driver.tested, driver.loss], on_missing="ignore"))
    training.train()
    training.test()
    assert [name for name, _ in rows()] == [driver.loss, driver.tested]


@pytest.mark.parametrize("on_missing", ["warn", "ignore"])
def test_a_metric_that_an_evaluation_brings_a_moment_later_is_not_missed(driver, rows, warnings_of, on_missing):
    names = [driver.loss, driver.score, driver.tested]
    training = driver.trainer(driver.callback(names, on_missing=on_missing), epochs=3, validate_every=None)
    training.train()
    training.evaluate()
    training.test()
    assert [name for name, _ in rows()] == names
    assert warnings_of() == []


def test_a_metric_of_a_test_is_not_missed_before_it(driver, rows, warnings_of):
    training = driver.trainer(driver.callback([driver.score, driver.tested]), epochs=3)
    training.train()
    training.test()
    assert [name for name, _ in rows()] == [driver.score, driver.tested]
    assert warnings_of() == []


def test_what_there_is_has_been_delivered_when_a_metric_of_a_test_is_missed(driver, rows):
    training = driver.trainer(driver.callback([driver.score, driver.tested], on_missing="raise"))
    with pytest.raises(ConfigurationError, match=f"'{driver.tested}' never appeared"):
        training.train()
    assert rows() == [(driver.score, 0.2)]


def test_neither_evaluation_nor_test_without_training_reports(driver, rows):
    callback = driver.callback([driver.score, driver.tested])
    training = driver.trainer(callback)
    training.evaluate()
    training.test()
    assert rows() == []
    assert callback.receipt is None


def test_what_an_evaluation_adds_is_shown_with_the_rest(status_server, driver, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "trainjob")
    training = driver.trainer(driver.callback([driver.score, driver.tested], on_missing="ignore"))
    training.train()
    assert status_server.seen[-1].metrics == {driver.score: "0.2"}
    training.test()
    assert set(status_server.seen[-1].metrics) == {driver.score, driver.tested}
    assert status_server.seen[-1].metrics[driver.score] == "0.2"
    assert status_server.percentages[-1] == 100
