"""Resumed runs, in frameworks whose checkpoints carry the rows of the run that wrote them."""

import pytest

from frameworks.progress import EPOCHS, STEPS, fractions, rounded


@pytest.mark.parametrize(
    ("report", "expected"), [("history", [0.5, 0.875, 0.25, 0.125]), ("best", [0.875]), ("final", [0.125])]
)
def test_a_resumed_run_goes_on_with_the_rows_of_the_checkpoint(katib_db_manager, driver, rows, report, expected):
    options = {"report": report} | ({"monitor": driver.score, "mode": "max"} if report == "best" else {})
    checkpoint = driver.interrupted(driver.callback(driver.score, **options), scores=[0.5, 0.875], epochs=4)
    assert rows() == []
    training = driver.trainer(driver.callback(driver.score, **options), scores=[0.25, 0.125], epochs=4)
    training.train(checkpoint)
    assert training.epochs == 4
    assert rows() == [(driver.score, value) for value in expected]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("report", "expected"), [("history", [0.25, 0.5]), ("best", [0.5]), ("final", [0.5])])
def test_a_child_trial_leaves_the_rows_of_its_parents_checkpoint_behind(
    katib_db_manager, driver, rows, monkeypatch, report, expected
):
    options = {"report": report} | ({"monitor": driver.score, "mode": "max"} if report == "best" else {})
    checkpoint = driver.interrupted(driver.callback(driver.score, **options), scores=[0.125, 0.875], epochs=4)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    driver.trainer(driver.callback(driver.score, **options), scores=[0.25, 0.5], epochs=4).train(checkpoint)
    assert [float(row.value) for row in katib_db_manager.metrics("child")] == expected
    assert rows() == []


def test_a_metric_that_only_the_first_part_of_a_resumed_run_logged_is_reported(driver, rows):
    metrics = [driver.score, driver.loss]
    checkpoint = driver.interrupted(driver.callback(metrics), scores=[0.1, 0.2, 0.3], epochs=4)
    training = driver.trainer(driver.callback(metrics), epochs=4, validate_every=None)
    training.train(checkpoint)
    assert rows() == [(driver.score, 0.3), (driver.loss, pytest.approx(training.losses[-1]))]


def test_a_resumed_run_shows_progress_from_where_the_other_ended(curve, driver):
    callback = driver.callback(driver.score, reporter=curve.reporter)
    checkpoint = driver.interrupted(callback, scores=[0.5], epochs=EPOCHS, steps=STEPS)
    del curve.told[:]
    callback = driver.callback(driver.score, reporter=curve.reporter)
    driver.trainer(callback, scores=[0.25, 0.125], epochs=EPOCHS, steps=STEPS).train(checkpoint)
    assert curve.fractions == rounded(fractions(first=STEPS))
    assert curve.latest == [{driver.score: score} for score in (0.5, 0.25, 0.125)], "the first of the run before"
    assert curve.sent == [{driver.score: 0.125}]
