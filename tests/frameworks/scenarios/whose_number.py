"""Whose number is reported: that of the model which the trainer holds in the end, or of the one that the run keeps."""

import re

import pytest

SCORES = [0.5, 0.875, 0.75, 0.625]


@pytest.mark.parametrize("is_ours_first", [True, False])
def test_the_row_of_the_model_that_is_kept_on_disk_is_reported(driver, rows, warnings_of, is_ours_first):
    callback = driver.callback([driver.score, driver.loss], report="kept")
    training = driver.trainer(callback, scores=SCORES, epochs=4, keeps="saved", is_ours_first=is_ours_first)
    training.train()
    assert (training.kept_epoch, training.held_epoch) == (2, 4)
    assert rows() == [(driver.score, 0.875), (driver.loss, pytest.approx(training.losses[1]))]
    assert warnings_of() == []


def test_a_model_that_is_kept_on_disk_does_not_change_what_is_final(driver, rows, warnings_of):
    callback = driver.callback([driver.score, driver.loss])
    training = driver.trainer(callback, scores=SCORES, epochs=4, keeps="saved")
    training.train()
    assert rows() == [(driver.score, 0.625), (driver.loss, pytest.approx(training.losses[-1]))]
    assert warnings_of() == []


def test_best_and_history_do_not_depend_on_the_model_that_is_kept(driver, rows):
    best = {"report": "best", "monitor": driver.score, "mode": "min"}
    for options in (best, {"report": "history"}):
        callback = driver.callback(driver.score, **options)
        driver.trainer(callback, scores=SCORES, epochs=4, keeps="restored" if driver.puts_back else "saved").train()
    assert rows() == [(driver.score, value) for value in [0.5, *SCORES]]


def test_where_nothing_is_kept_the_final_values_are_reported_and_that_is_said(driver, rows, warnings_of):
    driver.trainer(driver.callback(driver.score, report="kept"), scores=SCORES, epochs=4).train()
    assert rows() == [(driver.score, 0.625)]
    assert warnings_of() == ["No model was kept in this training, so the final values are reported."]


def test_a_final_value_that_is_older_than_the_model_is_said_with_both_numbers(driver, rows, warnings_of):
    driver.trainer(driver.callback({"accuracy": driver.score}), epochs=3, validate_every=2).train()
    assert rows() == [("accuracy", 0.1)]
    [message] = warnings_of()
    assert re.search("accuracy=0.1 is from (epoch|step) 2 of 3", message)


def test_a_value_that_is_older_than_the_best_model_is_said_with_both_numbers(driver, rows, warnings_of):
    callback = driver.callback([driver.score, driver.loss], report="best", monitor=driver.loss, mode="min")
    training = driver.trainer(callback, epochs=3, validate_every=2)
    training.train()
    assert training.losses == sorted(training.losses, reverse=True)
    assert rows() == [(driver.score, 0.1), (driver.loss, pytest.approx(training.losses[-1]))]
    [message] = warnings_of()
    assert re.search(f"{driver.score}=0.1 is from (epoch|step) 2, the model from 3", message)
