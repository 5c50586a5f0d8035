"""autolog: real trainings, none of which was given a callback by the test."""

import copy
import gc
import logging
import pickle
import weakref

import pytest

from frameworks.scenarios.driver import raises

# -- on, off, twice ----------------------------------------------------------------------------------------------------


def test_on(autolog, driver, rows):
    autolog(metrics={"accuracy": driver.score}, report="history")
    training = driver.trainer()
    training.train()
    assert [type(callback) for callback in training.ours] == [driver.callback]
    assert rows() == [("accuracy", 0.1), ("accuracy", 0.2)]


def test_never_called(driver, rows):
    training = driver.trainer()
    training.train()
    assert training.ours == []
    assert rows() == []


def test_on_by_environment_alone_where_the_framework_asks(autolog, driver, rows, monkeypatch):
    """``autolog`` is not called; its fixture undoes what the environment has turned on."""
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLOG", "1")
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", f"accuracy={driver.score}")
    training = driver.trainer()
    training.train()
    assert len(training.ours) == driver.is_on_by_environment
    assert rows() == [("accuracy", 0.2)] * driver.is_on_by_environment


def test_off_again(autolog, driver, rows):
    autolog(metrics=driver.score)
    before = driver.trainer()
    autolog(disable=True)
    after = driver.trainer()
    after.train()
    assert after.ours == []
    before.train()  # it may have a callback still, which was turned off
    assert before.epochs == 2
    assert rows() == []


def test_off_between_training_and_evaluation(autolog, driver, rows):
    autolog(metrics=driver.score)
    training = driver.trainer(validate_every=None)
    training.train()
    autolog(disable=True)
    training.evaluate()
    assert rows() == []


def test_on_again(autolog, driver, rows):
    autolog(metrics=driver.loss)
    autolog(disable=True)
    autolog(metrics=driver.score)
    driver.trainer().train()
    assert rows() == [(driver.score, 0.2)]


def test_twice_the_last_arguments_count_and_one_reports(autolog, driver, rows):
    autolog(metrics=driver.loss)
    autolog(metrics=driver.score)
    training = driver.trainer()
    training.train()
    assert len(training.ours) == 1
    assert rows() == [(driver.score, 0.2)]


def test_arguments_are_checked_again_where_the_environment_has_changed(autolog, driver, rows, monkeypatch, caplog):
    autolog()
    monkeypatch.setenv("KATIB_CALLBACKS_ON_NAN", "drop")
    training = driver.trainer()
    training.train()
    assert training.ours == []
    assert "autolog adds no callback: KATIB_CALLBACKS_ON_NAN must be" in caplog.text
    assert rows() == []


@pytest.mark.parametrize("trial", ["", None])
def test_outside_a_trial_no_training_has_it(autolog, driver, rows, monkeypatch, trial, caplog):
    assert rows() == []
    if trial is None:
        monkeypatch.delenv("KATIB_TRIAL_NAME")
    else:
        monkeypatch.setenv("KATIB_TRIAL_NAME", trial)
    caplog.set_level(logging.INFO)
    autolog(metrics=driver.score)
    training = driver.trainer()
    training.train()
    assert training.ours == []
    assert rows() == []
    assert caplog.text.count("Not in a Katib trial (KATIB_TRIAL_NAME is not set): nothing will be reported.") == 1


def test_a_rank_that_is_not_zero_has_it_and_reports_nothing(autolog, driver, rows, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    autolog(metrics=driver.score)
    training = driver.trainer()
    training.train()
    assert len(training.ours) == 1
    assert rows() == []


# -- beside explicit callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_subclass", [False, True], ids=["ours", "a subclass"])
@pytest.mark.parametrize("is_equal", [False, True], ids=["other", "equal"])
def test_an_explicit_callback_is_the_only_one(autolog, driver, rows, warnings_of, is_subclass, is_equal):
    autolog(metrics=driver.score if is_equal else driver.loss)
    kind = type("Mine", (driver.callback,), {}) if is_subclass else driver.callback
    explicit = kind(driver.score)
    training = driver.trainer(explicit)
    training.train()
    assert training.ours == [explicit]
    assert rows() == [(driver.score, 0.2)]
    assert not [message for message in warnings_of() if "there is already one" in message]


# -- trainings of every kind -------------------------------------------------------------------------------------------


def test_each_of_many_trainings_reports_and_none_is_kept(autolog, driver, rows):
    autolog(metrics=driver.score)
    references = []
    for _ in range(3):
        training = driver.trainer()
        training.train()
        references += map(weakref.ref, training.ours)
    assert rows() == [(driver.score, 0.2)] * 3
    del training
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_a_trainer_that_only_evaluates_reports_nothing(autolog, driver, rows):
    autolog()
    driver.trainer().evaluate()
    assert rows() == []


def test_an_evaluation_after_training_is_reported_where_it_has_names(autolog, driver, rows):
    autolog(metrics=driver.score)
    training = driver.trainer(validate_every=None)
    training.train()
    assert rows() == []
    training.evaluate()
    assert rows() == ([(driver.score, 0.1)] if driver.tested else [])


def test_a_training_inside_another_one_is_not_reported(autolog, driver, rows):
    epochs = []

    def probe():
        training = driver.trainer(epochs=3)
        training.train()
        epochs.append(training.epochs)
        assert rows() == [], "nothing is sent while training runs"

    autolog(metrics=driver.score)
    driver.trainer(driver.calls(epoch=probe)).train()
    assert rows() == [(driver.score, 0.2)]
    assert epochs == [3, 3]


def test_inside_another_training_an_explicit_callback_reports(autolog, driver, rows):
    def probe():
        driver.trainer(driver.callback({"probe": driver.score})).train()

    autolog(metrics=driver.score)
    driver.trainer(driver.calls(epoch=probe), epochs=1).train()
    assert [name for name, _ in rows()] == ["probe", driver.score]


def test_with_autolog_a_training_that_failed_reports_nothing_and_the_next_one_does(autolog, driver, rows):
    autolog(metrics=driver.score)
    with pytest.raises(OSError, match="in the middle"):
        driver.trainer(driver.calls(epoch=raises(OSError("in the middle")))).train()
    assert rows() == []
    driver.trainer().train()
    assert rows() == [(driver.score, 0.2)]


def test_copies_of_its_callback_report(autolog, driver, rows):
    autolog(metrics=driver.score)
    training = driver.trainer()
    training.train()
    (callback,) = training.ours
    for each in [pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)]:  # noqa: S301  our own bytes
        driver.trainer(each).train()
    assert rows() == [(driver.score, 0.2)] * 3
