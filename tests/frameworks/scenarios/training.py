"""The ways that a training goes in every framework, in one process."""

import pytest

from frameworks.scenarios.driver import raises
from katib_callbacks.settings import DEFAULT_RUNTIME
from katib_callbacks.settings.early_stopping import parse_policy
from katib_callbacks.sinks.katib import asking
from katib_callbacks.sinks.katib.endpoint import Endpoint

MEDIAN = "medianstop,min_trials_required=1,start_step=2,type=maximize"


def test_the_last_epoch_is_reported(katib_db_manager, driver, rows):
    callback = driver.callback({"accuracy": driver.score, "error": driver.loss})
    training = driver.trainer(callback)
    training.train()
    assert rows() == [("accuracy", 0.2), ("error", pytest.approx(training.losses[-1]))]
    assert callback.receipt.delivered == 2
    assert callback.receipt.trial_name == katib_db_manager.trial_name


@pytest.mark.parametrize(("scores", "epochs"), [([0.1, 0.2, 0.3, 0.4], 2), ([0.1, 0.9, 0.3, 0.4], 4)])
def test_the_db_manager_ends_a_bad_training_at_an_epochs_end(
    katib_db_manager, driver, rows, monkeypatch, scores, epochs
):
    monkeypatch.setattr(asking, "TIMEOUT_S", 60.0)
    monkeypatch.setenv("KATIB_CALLBACKS_EXPERIMENT", "scores")
    policy = parse_policy("policy", MEDIAN)
    sibling = asking.Asker(Endpoint(katib_db_manager.address), "sibling", policy, DEFAULT_RUNTIME)
    assert not any([sibling.ask(1, 0.5).stop, sibling.ask(2, 0.5).stop])
    sibling.tell_end()
    callback = driver.callback(driver.score, report="history", early_stopping=MEDIAN)
    training = driver.trainer(callback, scores=scores, epochs=4)

    training.train()

    assert rows() == [(driver.score, score) for score in scores[:epochs]]
    assert training.epochs == epochs
    stopped = callback.receipt.stopped
    assert stopped is None if epochs == 4 else "median of 1 trials is 0.5" in stopped


def test_history_has_each_epoch_and_a_time_of_its_own(katib_db_manager, driver, rows):
    driver.trainer(driver.callback(driver.score, report="history"), scores=[0.5, 0.75, 0.25], epochs=3).train()
    assert rows() == [(driver.score, value) for value in (0.5, 0.75, 0.25)]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_history_has_a_validation_only_where_there_was_one(katib_db_manager, driver, rows):
    callback = driver.callback([driver.score, driver.loss], report="history")
    training = driver.trainer(callback, epochs=4, validate_every=2)
    training.train()
    assert [value for name, value in rows() if name == driver.score] == [0.1, 0.2]
    assert [value for name, value in rows() if name == driver.loss] == [pytest.approx(loss) for loss in training.losses]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_a_validation_of_an_earlier_epoch_counts_if_it_is_the_last(driver, rows):
    driver.trainer(driver.callback(driver.score), epochs=3, validate_every=2).train()
    assert rows() == [(driver.score, 0.1)]


def test_best_reports_the_metrics_of_one_epoch(driver, rows):
    callback = driver.callback([driver.score, driver.loss], report="best", monitor=driver.score, mode="max")
    training = driver.trainer(callback, scores=[0.5, 0.875, 0.75], epochs=3)
    training.train()
    assert rows() == [(driver.score, 0.875), (driver.loss, pytest.approx(training.losses[1]))]


def test_best_may_be_a_minimum_and_the_last(driver, rows):
    callback = driver.callback(driver.score, report="best", monitor=driver.score, mode="min")
    driver.trainer(callback, scores=[0.5, 0.875, 0.25], epochs=3).train()
    assert rows() == [(driver.score, 0.25)]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_training_that_fails_reports_nothing_and_the_next_one_only_itself(driver, rows, error):
    callback = driver.callback(driver.score, report="history")
    with pytest.raises(error):
        driver.trainer(callback, driver.calls(epoch=raises(error()))).train()
    assert rows() == []
    assert callback.receipt is None
    driver.trainer(callback).train()
    assert rows() == [(driver.score, 0.1), (driver.score, 0.2)]


def test_an_evaluation_after_a_training_that_failed_reports_nothing(driver, rows):
    training = driver.trainer(driver.callback(driver.score), driver.calls(epoch=raises(RuntimeError("no memory"))))
    with pytest.raises(RuntimeError, match="no memory"):
        training.train()
    training.evaluate()
    assert rows() == []


def test_an_earlier_callback_that_fails_at_the_end_keeps_ours_from_reporting(driver, rows):
    with pytest.raises(RuntimeError, match="early"):
        driver.trainer(driver.calls(end=raises(RuntimeError("early"))), driver.callback(driver.score)).train()
    assert rows() == []


def test_evaluation_without_training_reports_nothing(driver, rows):
    callback = driver.callback(driver.score)
    driver.trainer(callback).evaluate()
    assert rows() == []
    assert callback.receipt is None


def test_each_training_reports_with_one_callback(driver, rows):
    callback = driver.callback(driver.score)
    for score in (0.5, 0.25):
        driver.trainer(callback, scores=[1.0, score]).train()
    assert rows() == [(driver.score, 0.5), (driver.score, 0.25)]
    assert callback.receipt.delivered == 1


def test_two_callbacks_report_different_things_side_by_side(driver, rows):
    training = driver.trainer(driver.callback(driver.score), driver.callback(driver.loss))
    training.train()
    assert rows() == [(driver.score, 0.2), (driver.loss, pytest.approx(training.losses[-1]))]


@pytest.mark.parametrize("is_used", [False, True], ids=["new", "used"])
def test_a_copy_reports_like_the_original(driver, rows, copied, is_used):
    callback = driver.callback(driver.score, report="history")
    if is_used:
        driver.trainer(callback).train()
    receipt = callback.receipt
    copy = copied(callback)
    assert copy.receipt == receipt
    driver.trainer(copy).train()
    assert rows() == [(driver.score, 0.1), (driver.score, 0.2)] * (1 + is_used)
    assert callback.receipt == receipt
