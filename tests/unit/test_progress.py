"""How far a training is and how long it will take, whatever the framework."""

import math

import pytest

from katib_callbacks.recording.shares import largest, share_of_epochs
from katib_callbacks.reporting.progress import ALMOST_DONE, Progress


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


class Told(list):
    def progress(self, fraction, remaining_s, latest):
        self.append((fraction, remaining_s, latest))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def progress(clock, told):
    return Progress([("told", told)], clock)


def test_what_remains_is_estimated_from_what_this_process_has_done(progress, clock, told):
    progress.begin(0.5)
    clock.now_s += 10
    progress.show(0.6)
    clock.now_s += 30
    progress.finish()

    assert told == [(0.5, None, {}), (0.6, pytest.approx(40), {}), (1.0, 0.0, {})]


def test_it_never_falls_and_is_one_at_the_end_alone(progress, told):
    progress.begin(0.2)
    for fraction in (0.1, 0.4, None, 0.3, 1.0, 7.0):
        progress.show(fraction)

    assert [fraction for fraction, *_ in told] == [0.2, 0.2, 0.4, 0.4, 0.4, ALMOST_DONE, ALMOST_DONE]


def test_it_is_due_once_a_second(progress, clock):
    progress.begin(0.0)

    assert not progress.is_due()
    clock.now_s += 1
    assert progress.is_due()
    progress.show(0.1)
    assert not progress.is_due()


def test_what_a_sink_was_given_is_not_changed_later(progress, told):
    progress.begin(0.0, {"a": 1.0})
    progress.update({"b": 2.0})
    progress.update({})

    assert [latest for *_, latest in told] == [{"a": 1.0}, {"a": 1.0, "b": 2.0}]


@pytest.mark.logs_error("Internal error while computing")
def test_a_share_that_cannot_be_computed_ends_the_showing_and_nothing_else(progress, told):
    progress.begin(0.0)
    progress.show_share(lambda: 1 / 0)
    progress.show_share(lambda: 0.5)
    progress.finish()

    assert len(told) == 1


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ((1, 4, 1, 2), 0.375),
        ((1, 4, 9, 2), 0.5),
        ((1, 4, 1, None), 0.25),
        ((1, 4, 1, math.inf), 0.25),
        ((1, 4, 1, 0), 0.25),
        ((1, None, 1, 2), None),
        ((1, -1, 1, 2), None),
    ],
)
def test_the_share_of_epochs(arguments, share):
    assert share_of_epochs(*arguments) == share


def test_the_limit_that_comes_first_counts():
    assert largest([None, 0.2, 0.5]) == 0.5
    assert largest([None]) is None
