"""Algorithms that go by generations: hyperband and population based training."""

import pytest

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local import search
from katib_callbacks.local.algorithms import settings
from katib_callbacks.local.algorithms.pbt import GENERATION, PARENT
from katib_callbacks.local.algorithms.space import read_parameter

HYPERBAND = {"r_l": "9", "eta": "3", "resource_name": "epochs"}
PBT = {"suggestion_trial_dir": "/checkpoints", "n_population": "5", "truncation_threshold": "0.4"}
SPACE = {
    "lr": search.double(min=0.1, max=1.0, step=0.1),
    "epochs": search.int(min=1, max=1),
    "optimizer": search.categorical(["sgd", "adam", "ftrl"]),
}


def space(specs=SPACE):
    for name, spec in specs.items():
        spec.name = name
    return [read_parameter(spec) for spec in specs.values()]


def make(name, given, *, maximize=False):
    return settings.make(settings.choose(name, given), space(), seed=7, maximize=maximize)


def assignments(point):
    return {one.name: one.assignment(point[one.name]) for one in space()}


def rounds(algorithm, value):
    """Run all trials that there are, again and again; returns the points of each time."""
    told, found = 0, []
    while True:
        asked = []
        while len(asked) < 100 and (point := algorithm.ask()) is not None:
            asked.append(point)
        if not asked:
            return found
        found.append(asked)
        for point in asked:
            algorithm.tell(told, value(told, point))
            told += 1


@pytest.mark.parametrize("maximize", [False, True])
def test_hyperband_runs_the_best_of_each_round_for_longer(maximize):
    found = rounds(make("hyperband", HYPERBAND, maximize=maximize), lambda number, _: number)

    # Brackets of 9 -> 3 -> 1, of 5 -> 2, and of 3. A new bracket does not wait for the last round of the one before.
    sizes = [[(point, int(assignments(point)["epochs"])) for point in asked] for asked in found]
    assert [[epochs for _, epochs in asked] for asked in sizes] == [
        [1] * 9,
        [3] * 3,
        [9] + [3] * 5,
        [9] * 2 + [9] * 3,
    ]
    first = found[0]
    best = first[-1:-4:-1] if maximize else first[:3]
    assert [{**point, "epochs": 0} for point in found[1]] == [{**point, "epochs": 0} for point in best]


def test_hyperband_waits_for_the_round_and_leaves_out_what_failed():
    algorithm = make("hyperband", HYPERBAND)
    first = [algorithm.ask() for _ in range(9)]
    for number in range(8):
        algorithm.tell(number, None if number < 7 else 1.0)
    assert algorithm.ask() is None
    assert algorithm.is_waiting

    algorithm.tell(8, None)
    assert {**algorithm.ask(), "epochs": 0} == {**first[7], "epochs": 0}


def test_hyperband_goes_on_with_the_next_bracket_if_all_have_failed():
    algorithm = make("hyperband", HYPERBAND)
    for _ in range(9):
        algorithm.ask()
    for number in range(9):
        algorithm.tell(number, None)

    assert assignments(algorithm.ask())["epochs"] == "3"


@pytest.mark.parametrize(("name", "given"), [("hyperband", HYPERBAND), ("pbt", PBT)])
def test_a_replay_goes_on_where_it_stood(name, given):
    whole, resumed = make(name, given), make(name, given)
    points = []
    for number in range(14):
        point = whole.ask()
        if point is None:
            break
        points.append(point)
        if number >= 8:
            for other in range(9) if number == 8 else (number,):
                whole.tell(other, float(other % 4))
    for number, point in enumerate(points):
        resumed.recall(point)
        if number >= 8:
            for other in range(9) if number == 8 else (number,):
                resumed.tell(other, float(other % 4))

    assert len(points) == 14
    assert [resumed.ask() for _ in range(2)] == [whole.ask() for _ in range(2)]


def test_a_population_is_followed_by_its_children():
    algorithm = make("pbt", PBT)
    first = []
    for number in range(6):  # as in Katib, one more than the population
        first.append(algorithm.ask())
        algorithm.tell(number, float(number))
    second = [algorithm.ask() for _ in range(5)]

    assert [point[GENERATION] for point in first] == [0] * 6
    assert [PARENT in point for point in first] == [False] * 6
    assert [point[GENERATION] for point in second] == [1] * 5
    assert len({point[PARENT] for point in second}) == 5, "each goes on from a checkpoint of its own"
    exploited, explored = second[:2], second[2:]
    for point in exploited:  # the worst, of which 4 and 5 are the greatest losses, with the parameters of a good one
        assert point[PARENT] in {4, 5}
        assert any(point[one] == first[good][one] for good in (0, 1, 2) for one in ("lr", "optimizer"))
        assert {name: point[name] for name in SPACE} in [
            {name: first[good][name] for name in SPACE} for good in (0, 1, 2)
        ]
    for point in explored:
        lr, parents = (float(assignments(one)["lr"]) for one in (point, first[point[PARENT]]))
        assert lr == pytest.approx(min(max(parents * 0.8, 0.1), 1.0)) or lr == pytest.approx(min(parents * 1.2, 1.0))
        assert point["optimizer"] != first[point[PARENT]]["optimizer"]


def test_what_failed_in_a_population_is_tried_again():
    algorithm = make("pbt", PBT)
    first = [algorithm.ask() for _ in range(5)]
    algorithm.tell(3, None)

    assert algorithm.ask() == first[3]


def test_parameters_are_drawn_anew_where_the_settings_say_so():
    algorithm = make("pbt", {**PBT, "resample_probability": "0"})
    first = []
    for number in range(6):
        first.append(algorithm.ask())
        algorithm.tell(number, float(number))
    explored = [algorithm.ask() for _ in range(5)][2:]

    for point in explored:
        assert {name: point[name] for name in SPACE} == {name: first[point[PARENT]][name] for name in SPACE}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("hyperband", {"r_l": "9"}, "hyperband needs r_l and resource_name"),
        ("hyperband", {"r_l": "9", "resource_name": "steps"}, r"resource_name 'steps' is not one of spec\.parameters"),
        ("hyperband", {**HYPERBAND, "r_l": "27"}, "hyperband needs a parallelTrialCount of at least 27, not 9"),
        ("hyperband", {**HYPERBAND, "r_l": "0.5"}, "'0.5' cannot be r_l of hyperband"),
        ("pbt", {"n_population": "5"}, "pbt needs suggestion_trial_dir, truncation_threshold"),
        ("pbt", {**PBT, "n_population": "4"}, "'4' cannot be n_population of pbt"),
        ("pbt", {**PBT, "truncation_threshold": "1.5"}, "'1.5' cannot be truncation_threshold of pbt"),
        ("pbt", {**PBT, "suggestion_trial_dir": "checkpoints"}, "'checkpoints' cannot be suggestion_trial_dir of pbt"),
    ],
)
def test_what_the_suggestion_service_refuses_is_refused(name, given, message):
    with pytest.raises(ConfigurationError, match=message):
        settings.check_space(settings.choose(name, given), space(), 20, parallel=9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (search.double(min=0, max=1), "parameter 'lr': pbt needs feasibleSpace.step of a double"),
        (
            search.int(min=1, max=9, distribution="logUniform"),
            "pbt knows only the distribution uniform",
        ),
    ],
)
def test_a_parameter_that_cannot_be_perturbed_is_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        settings.check_space(settings.choose("pbt", PBT), space({"lr": spec}), 20)
