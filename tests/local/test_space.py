"""Values of the search space: what an algorithm's coordinate becomes in a trial."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local import search
from katib_callbacks.local.algorithms.space import read_parameter
from katib_callbacks.local.api.models import V1beta1FeasibleSpace, V1beta1ParameterSpec


def parameter(spec, name="p"):
    spec.name = name
    return read_parameter(spec)


def values(spec, count=400):
    one = parameter(spec)
    chance = random.Random(0)  # noqa: S311  no secret
    distribution = one.optuna_distribution()
    low, high = distribution.low, distribution.high
    draw = chance.randint if isinstance(low, int) else chance.uniform
    return [one.assignment(draw(low, high)) for _ in range(count)]


def test_a_step_gives_decimals_without_noise():
    spec = search.double(min=0.1, max=0.5, step=0.1)

    assert [parameter(spec).assignment(index) for index in parameter(spec).grid()] == [
        "0.1",
        "0.2",
        "0.3",
        "0.4",
        "0.5",
    ]
    assert set(values(spec)) == {"0.1", "0.2", "0.3", "0.4", "0.5"}


def test_a_step_that_does_not_reach_the_end_stays_below_it():
    assert set(values(search.int(min=1, max=10, step=4))) == {"1", "5", "9"}


@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
def test_every_distribution_stays_in_its_range_and_on_its_steps(distribution):
    whole = values(search.int(min=1, max=8, distribution=distribution))
    stepped = values(search.double(min=0.5, max=2.5, step=0.5, distribution=distribution))
    plain = values(search.double(min=0.001, max=0.1, distribution=distribution))

    assert set(whole) == set("12345678")
    assert set(stepped) == {"0.5", "1.0", "1.5", "2.0", "2.5"}
    assert all(0.001 <= float(value) <= 0.1 for value in plain)


def test_log_uniform_gives_each_decade_its_share():
    drawn = [float(value) for value in values(search.double(min=1e-4, max=1.0, distribution="logUniform"), 4000)]

    for exponent in range(-4, 0):
        share = sum(10.0**exponent <= value < 10.0 ** (exponent + 1) for value in drawn) / len(drawn)
        assert share == pytest.approx(0.25, abs=0.05)


def test_normal_gathers_in_the_middle_as_katib_spreads_it():
    drawn = [float(value) for value in values(search.double(min=0.0, max=6.0, distribution="normal"), 4000)]

    assert statistics.fmean(drawn) == pytest.approx(3.0, abs=0.1)
    assert statistics.stdev(drawn) == pytest.approx(1.0, abs=0.1), "(max - min) / 6"


@given(st.integers(-1000, 1000), st.integers(0, 1000), st.integers(1, 50))
def test_a_whole_number_is_always_within_its_bounds(low, width, step):
    one = parameter(search.int(min=low, max=low + width, step=step))

    found = [int(one.assignment(index)) for index in one.grid()]
    assert found == list(range(low, low + width + 1, step))


def test_a_grid_that_cannot_be_counted_is_refused():
    with pytest.raises(ConfigurationError, match="the grid has more values than can be counted"):
        parameter(search.int(min=0, max=10**30)).grid()


def test_choices_are_strings_in_their_order():
    spec = search.categorical(["sgd", 1, 0.5, True])

    assert parameter(spec).grid() == ("sgd", "1", "0.5", "True")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (search.double(min=2, max=1), r"feasibleSpace: min 2 is above max 1"),
        (search.double(min=0, max=1, step=0), r"feasibleSpace\.step: must be above zero, not 0"),
        (search.double(min=0, max="a lot"), r"feasibleSpace\.max: 'a lot' is not a number"),
        (search.double(min=0, max="1e999999999"), r"feasibleSpace\.max: '1e999999999' is no double"),
        (search.double(min=0, max=1, step="1e-999999999"), r"feasibleSpace\.step: '1e-999999999' is no double"),
        (search.int(min=0.5, max=1), r"feasibleSpace\.min: '0\.5' is no int"),
        (
            search.double(min=0, max=1, distribution="log"),
            r"'log' is not known; known: uniform, logUniform, normal, logN",
        ),
        (search.categorical([]), r"feasibleSpace\.list: must have at least one value"),
        (search.categorical(["a", "a"]), r"feasibleSpace\.list: has a value twice"),
        (V1beta1ParameterSpec(parameter_type="int"), r"feasibleSpace: must be specified"),
        (
            V1beta1ParameterSpec(parameter_type="float", feasible_space=V1beta1FeasibleSpace(min="0", max="1")),
            r"parameterType: 'float' is not known; known: int, double, categorical, discrete",
        ),
        (
            V1beta1ParameterSpec(parameter_type="double", feasible_space=V1beta1FeasibleSpace(min="0")),
            r"feasibleSpace\.max: must be specified for parameterType double",
        ),
    ],
)
def test_what_cannot_be_sampled_is_named(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        parameter(spec)
