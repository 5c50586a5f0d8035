"""How far a training is, as the sinks that show it are told: the same curve in every framework."""

import itertools
import threading

import pytest

from frameworks.progress import (
    EPOCHS,
    STEPS,
    Gate,
    assert_same_curve,
    assert_trained_beside_a_hanging_server,
    fractions,
    rounded,
)
from frameworks.scenarios.driver import raises


def test_the_status_server_sees_the_curve_of_all_frameworks(status_server, status_reporter, driver):
    ours = driver.callback(driver.score, reporter=status_reporter)
    gate = Gate(status_server)
    driver.trainer(ours, driver.calls(begin=gate.pass_step, step=gate.pass_step), epochs=EPOCHS, steps=STEPS).train()
    assert_same_curve(status_server)
    assert status_server.seen[-1].metrics == {driver.score: "0.3"}
    assert ours.receipt.delivered == 1


def test_the_curve_and_the_metrics_so_far(curve, driver):
    callback = driver.callback({"accuracy": driver.score}, reporter=curve.reporter)
    driver.trainer(callback, epochs=EPOCHS, steps=STEPS).train()
    assert curve.fractions == rounded(fractions())
    assert curve.latest == [{}, {"accuracy": 0.1}, {"accuracy": 0.2}, {"accuracy": 0.3}]
    assert curve.sent == [{"accuracy": 0.3}]


def test_a_training_that_stops_early_is_done(curve, driver):
    callback = driver.callback(driver.score, reporter=curve.reporter)
    training = driver.trainer(callback, scores=[0.3, 0.2, 0.1], epochs=EPOCHS, steps=STEPS, stops_early=True)
    training.train()
    assert training.epochs == 2
    assert curve.fractions == rounded(fractions(2 * STEPS))


def test_a_training_that_fails_stays_where_it_was(curve, driver):
    fails = driver.calls(epoch=raises(RuntimeError("out of memory")))
    training = driver.trainer(driver.callback(reporter=curve.reporter), fails, epochs=EPOCHS, steps=STEPS)
    with pytest.raises(RuntimeError, match="out of memory"):
        training.train()
    assert curve.fractions == rounded(fractions(STEPS)[:-1])
    assert curve.sent == []


def test_evaluation_has_no_progress(curve, driver):
    training = driver.trainer(driver.callback(reporter=curve.reporter))
    training.evaluate()
    if driver.tested:
        training.test()
    assert curve.told == []


def test_a_second_training_begins_anew(curve, driver):
    callback = driver.callback(reporter=curve.reporter)
    for _ in range(2):
        driver.trainer(callback, epochs=1, steps=STEPS).train()
    assert curve.fractions == [0.0, 0.25, 0.5, 0.75, 0.999, 1.0] * 2


def test_a_sink_that_fails_is_told_nothing_more(curve, driver, caplog):
    calls = itertools.count()

    def fail(*_):
        next(calls)
        raise RuntimeError("cannot")

    curve.progress = fail
    driver.trainer(driver.callback(driver.score, reporter=curve.reporter), steps=STEPS).train()
    assert next(calls) == 1
    assert curve.sent == [{driver.score: 0.2}]
    assert [
        record.getMessage() for record in caplog.records if record.name == "katib_callbacks.reporting.progress"
    ] == ["The sink 'Curve' does not show progress: RuntimeError: cannot"]


def test_training_does_not_wait_for_a_server_that_hangs(status_server, driver, monkeypatch, katib_db_manager):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    status_server.behave_always("hang")
    seen = []

    def look():
        threads = [t.name for t in threading.enumerate() if t.name == "katib-callbacks-trainjob"]
        seen.append((status_server.begun, threads))

    callback = driver.callback(driver.score)
    driver.trainer(driver.calls(end=look), callback, epochs=EPOCHS, steps=STEPS).train()
    ((begun, threads),) = seen
    assert begun <= 1, "no step has waited for the one request, which is still under way"
    assert threads == ["katib-callbacks-trainjob"]
    assert katib_db_manager.latest() == {driver.score: 0.3}
    assert_trained_beside_a_hanging_server(status_server, callback.receipt)


def test_autolog_reports_a_trainjob_that_is_no_trial(autolog, status_server, driver, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    autolog(metrics=driver.score)
    driver.trainer().train()
    assert status_server.seen[-1].metrics == {driver.score: "0.2"}
    assert status_server.percentages[-1] == 100
