"""The algorithms: Katib's names and settings, seeds, and going on after a restart."""

import pytest

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local import search
from katib_callbacks.local.algorithms import settings
from katib_callbacks.local.algorithms.space import read_parameter

NUMBERS = {"x": search.double(min=-5, max=5), "y": search.double(min=-5, max=5)}
STEPS = {"x": search.int(min=0, max=3), "y": search.double(min=0, max=1, step=0.5)}


def space(specs):
    parameters = []
    for name, spec in specs.items():
        spec.name = name
        parameters.append(read_parameter(spec))
    return parameters


def make(name, given=None, specs=NUMBERS, seed=7):
    return settings.make(settings.choose(name, given or {}), space(specs), seed=seed, maximize=False)


def loss(point):
    return (point["x"] - 1) ** 2 + (point["y"] + 2) ** 2


def search_for(algorithm, count):
    points = []
    for number in range(count):
        point = algorithm.ask()
        points.append(point)
        algorithm.tell(number, loss(point))
    return points


def best(points):
    return min(map(loss, points))


@pytest.mark.parametrize("name", ["random", "tpe", "multivariate-tpe", "cmaes", "sobol"])
def test_a_seed_gives_the_same_search_and_another_seed_another(name):
    first, again, other = (search_for(make(name, {"random_state": seed}), 12) for seed in ("3", "3", "4"))

    assert first == again
    assert first != other


@pytest.mark.long
def test_a_gaussian_process_learns_and_goes_on_after_a_restart():
    pytest.importorskip("torch")
    given = {"random_state": "3", "n_initial_points": "5"}
    algorithm = make("bayesianoptimization", given)
    points = search_for(algorithm, 15)

    assert best(points[5:]) < best(search_for(make("random", {"random_state": "3"}), 15)) / 2
    resumed = make("bayesianoptimization", given)
    for number, point in enumerate(points):
        resumed.recall(point)
        resumed.tell(number, loss(point))
    assert resumed.ask() == algorithm.ask()


@pytest.mark.parametrize(
    ("name", "given", "warning"),
    [
        (
            "tpe",
            {"n_startup_trials": "3", "gamma": "0.3"},
            (
                "tpe on a cluster is hyperopt's and fails an experiment with the setting n_startup_trials; it takes "
                "random_state, n_EI_candidates, gamma, prior_weight."
            ),
        ),
        (
            "multivariate-tpe",
            {"n_EI_candidates": "8"},
            (
                "multivariate-tpe on a cluster is Optuna's and fails an experiment with the setting n_EI_candidates; "
                "it takes random_state, n_startup_trials, n_ei_candidates."
            ),
        ),
        (
            "bayesianoptimization",
            {"acq_func": "EI"},
            "bayesianoptimization is Optuna's Gaussian process here, on which acq_func has no effect.",
        ),
    ],
)
def test_a_setting_that_is_another_on_a_cluster_is_said(name, given, warning):
    assert settings.choose(name, given).warnings == (warning,)


def test_a_setting_that_a_cluster_takes_is_not_spoken_of():
    given = {"random_state": "1", "n_EI_candidates": "8", "gamma": "0.3", "prior_weight": "2"}

    assert settings.choose("tpe", given).warnings == ()


@pytest.mark.parametrize("name", ["tpe", "multivariate-tpe", "cmaes"])
def test_what_learns_is_better_than_chance(name):
    learned = [best(search_for(make(name, seed=seed), 60)[30:]) for seed in range(3)]
    random = [best(search_for(make("random", seed=seed), 60)[30:]) for seed in range(3)]

    assert sum(learned) < sum(random) / 2


@pytest.mark.parametrize("name", ["random", "tpe", "multivariate-tpe", "cmaes", "sobol"])
def test_replaying_the_same_questions_and_answers_goes_on_where_it_stood(name):
    whole = make(name)
    expected = []
    for number in range(20):
        expected.append(whole.ask())
        if number % 2:
            whole.tell(number - 1, loss(expected[number - 1]))
            whole.tell(number, None if number % 3 == 0 else loss(expected[number]))

    replayed = make(name)
    for number in range(20):
        assert replayed.ask() == expected[number]
        if number % 2:
            replayed.tell(number - 1, loss(expected[number - 1]))
            replayed.tell(number, None if number % 3 == 0 else loss(expected[number]))
    assert replayed.ask() == whole.ask()


@pytest.mark.parametrize("name", ["random", "tpe", "cmaes"])
def test_an_answer_that_was_another_is_corrected_and_learned_from(name):
    algorithm = make(name)
    algorithm.recall({"x": 0.25, "y": -0.5})
    algorithm.tell(0, 1.0)

    trials = algorithm._study.trials
    assert [trial.params for trial in trials if trial.state.name == "COMPLETE"] == [{"x": 0.25, "y": -0.5}]
    assert algorithm.ask() is not None


def test_a_grid_has_each_point_once_and_then_ends():
    grid = make("grid", specs=STEPS)
    points = [grid.ask() for _ in range(12)]

    assert len({tuple(point.items()) for point in points}) == 12
    assert points[:4] == [{"x": 0, "y": 0}, {"x": 0, "y": 1}, {"x": 0, "y": 2}, {"x": 1, "y": 0}]
    assert grid.ask() is None


def test_a_seed_shuffles_the_grid():
    plain, shuffled = ([make("grid", s, STEPS).ask() for _ in range(1)] for s in ({}, {"random_state": "1"}))
    whole = [make("grid", {"random_state": "1"}, STEPS) for _ in range(2)]

    assert plain != shuffled
    first, second = ([grid.ask() for _ in range(12)] for grid in whole)
    assert first == second


def test_sobol_fills_the_space_evenly():
    points = search_for(make("sobol"), 16)

    for name in ("x", "y"):
        quarters = [sum(-5 + 2.5 * q <= point[name] < -2.5 + 2.5 * q for point in points) for q in range(4)]
        assert quarters == [4, 4, 4, 4]


def test_all_of_katibs_settings_are_taken():
    all_of_them = {
        "tpe": {
            "random_state": "1",
            "n_startup_trials": "2",
            "n_ei_candidates": "8",
            "gamma": "0.3",
            "prior_weight": "1.5",
        },
        "multivariate-tpe": {"random_state": "1", "n_startup_trials": "2", "n_ei_candidates": "8"},
        "cmaes": {"random_state": "1", "sigma": "0.2", "restart_strategy": "none"},
    }
    for name, given in all_of_them.items():
        assert len(search_for(make(name, given), 6)) == 6
    assert search_for(make("tpe", all_of_them["tpe"]), 9) != search_for(make("tpe", {"random_state": "1"}), 9)
    assert search_for(make("cmaes", all_of_them["cmaes"]), 9) != search_for(make("cmaes", {"random_state": "1"}), 9)


def test_a_restart_strategy_that_optuna_lost_is_said(caplog):
    settings.choose("cmaes", {"restart_strategy": "ipop"})

    assert "restart_strategy 'ipop' is not acted upon" in caplog.text


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("enas", {}, "'enas' is not one .*known: random, grid, tpe, multivariate-tpe, cmaes, sobol"),
        ("bayesianoptimization", {"base_estimator": "NN"}, "'NN' cannot be base_estimator of bayesianoptimization"),
        ("random", {"seed": "1"}, "random has no setting 'seed'; known: random_state"),
        ("cmaes", {"sigma": "-1"}, "'-1' cannot be sigma of cmaes"),
        ("tpe", {"random_state": "x"}, "'x' cannot be random_state of tpe"),
        ("tpe", {"gamma": "1.5"}, "'1.5' cannot be gamma of tpe"),
        ("cmaes", {"restart_strategy": "often"}, "'often' cannot be restart_strategy"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(name, given, message):
    with pytest.raises(ConfigurationError, match=message):
        settings.choose(name, given)


@pytest.mark.parametrize(
    ("name", "specs", "count", "message"),
    [
        ("cmaes", {"x": NUMBERS["x"], "c": search.categorical(["a"])}, 3, "cmaes needs two parameters"),
        ("grid", {"x": NUMBERS["x"]}, 3, "parameter 'x': the grid needs feasibleSpace.step"),
        ("grid", STEPS, 13, "the grid has 12 points, fewer than maxTrialCount 13"),
    ],
)
def test_a_space_that_an_algorithm_cannot_search_is_refused(name, specs, count, message):
    with pytest.raises(ConfigurationError, match=message):
        settings.check_space(settings.choose(name, {}), space(specs), count)
