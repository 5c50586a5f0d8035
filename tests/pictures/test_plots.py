"""Plots of an experiment whose trials ended in every way, in files that need nothing else."""

import re
import struct
from dataclasses import replace

import pytest

from katib_callbacks.cli import main
from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.records import experiment_record
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.pictures import html, png
from katib_callbacks.pictures.kinds import KINDS, MAX_CONTOUR_PARAMETERS, MAX_NAMED_CURVES, drawable, importances
from katib_callbacks.pictures.records import all_shortened
from katib_callbacks.pictures.sparkline import curves, sparkline
from katib_callbacks.pictures.study import study_of


@pytest.fixture(scope="module")
def record(mixed):
    with ExperimentStore(database(mixed.home)) as store:
        return experiment_record(store, mixed.home, "mixed")


def by_parameter(record):
    return {trial.parameters["x"]: trial for trial in record.trials}


def test_the_study_is_our_store(record):
    study = study_of(record)

    assert study.best_trial.number == record.best.number
    assert study.best_value == record.best.objective == pytest.approx(0.3)
    assert [trial.state.name for trial in study.trials].count("FAIL") == 2
    assert [trial.params["x"] for trial in study.trials] == [float(t.parameters["x"]) for t in record.trials]


def test_curves_are_rows_or_what_the_callback_showed(record):
    trials = by_parameter(record)

    assert trials["0.1"].curve("loss") == [(n, pytest.approx(0.1 + 1 / n)) for n in range(1, 6)]  # its history
    assert trials["0.6"].curve("loss") == [(n, pytest.approx(0.6 + 1 / n)) for n in range(1, 6)]  # reported once
    assert [step for step, _ in trials["0.7"].curve("loss")] == [1, 2, 3]  # failed
    assert trials["0.9"].curve("loss") == []


def test_the_objectives_plot_has_every_trial_that_ended_and_the_best(mixed):
    drawn = LocalKatibClient(home=mixed.home).plot("mixed")
    traces = {trace.name: trace for trace in drawn.data}

    assert set(traces) == {"best so far", "Succeeded", "Failed", "MetricsUnavailable"}
    assert len(traces["Succeeded"].x) == 3
    assert min(traces["best so far"].y) == pytest.approx(0.3)
    assert "out of memory" in traces["Failed"].hovertext[0]


def test_failed_curves_are_marked(mixed):
    drawn = LocalKatibClient(home=mixed.home).plot("mixed", "curves", metric="accuracy")
    traces = {trace.name: trace for trace in drawn.data}

    assert len(drawn.data) == 4 + 1
    assert list(traces["Failed"].x) == [3]


def many(record, count):
    """Return the experiment with its trials again and again, under other names."""
    trials = [
        replace(
            record.trials[number % 5],
            name=f"mixed-{number:08}",
            number=number,
            parameters={"x": str(number / 1000), "optimizer": f"a-long-name-{number % 2}"},
        )
        for number in range(count)
    ]
    return replace(record, trials=trials)


def test_of_many_trials_the_legend_has_states_and_the_best(record):
    drawn = html.figure(many(record, 60), "curves")

    assert sum(trace.showlegend is not False for trace in drawn.data) == 2 < MAX_NAMED_CURVES


def wide(record):
    """Return the experiment with seven whole numbers for parameters, the fifth of which is the objective."""
    best = record.best
    trials = []
    for number in range(250):
        values = [(number * 7 + place * number // 10) % 10 for place in range(7)]
        parameters = {f"n{place}": str(value) for place, value in enumerate(values)}
        changes = {"name": f"wide-{number}", "number": number, "parameters": parameters, "objective": float(values[4])}
        trials.append(replace(best, **changes))
    one = replace(record.parameters[0], kind="int", low=0.0, high=9.0)
    return replace(record, trials=trials, parameters=[replace(one, name=f"n{place}") for place in range(7)])


def test_of_many_parameters_the_important_ones_are_drawn(record):
    shown = wide(record)

    assert next(iter(importances(shown))) == "n4"
    drawn = drawable(shown, "contour").parameters
    assert len(drawn) == MAX_CONTOUR_PARAMETERS
    assert "n4" in [parameter.name for parameter in drawn]
    same = replace(shown, trials=[replace(trial, objective=1.0) for trial in shown.trials])
    assert [parameter.name for parameter in drawable(same, "contour").parameters][:2] == ["n0", "n1"]
    with pytest.raises(ExperimentError, match="importances need trials with different objectives"):
        drawable(same, "importances")


def test_names_that_are_shortened_stay_different():
    names = [f"{'a' * 30}{number}{'b' * 30}" for number in range(12)]
    short = all_shortened(names, 12)

    assert len(set(short.values())) == 12
    assert max(map(len, short.values())) <= 12


def test_a_terminals_curves_have_the_last_values_and_say_where_there_is_no_number():
    assert sparkline(range(100), 4) == "▁▃▆█"
    assert list(curves([("loss", "unavailable"), ("loss", "nan")], 80)) == ["loss has no number"]


@pytest.mark.parametrize("count", [5, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_as_html_and_png(record, kind, count):
    shown = many(record, count)

    assert html.figure(shown, kind).layout.title.text == KINDS[kind]
    content = png.picture(shown, [kind])
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 500 < height + 300


def test_a_page_loads_nothing(mixed, tmp_path, capsys):
    path = tmp_path / "x.html"
    assert main(["experiment", "plot", "mixed", "--home", str(mixed.home), "-o", str(path)]) == 0
    page = path.read_text(encoding="utf-8")

    assert not re.search(r"<script[^>]+src=|<link|@import|url\(http", page[: page.index("<script>")])
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*(src|href)=", re.sub(r"(?s)<script>.*?</script>", "", page))
    assert page.count('class="plotly-graph-div"') == 5
    assert "contour needs 2 parameters with different values" in page
    assert f"{path} shows experiment mixed" in capsys.readouterr().out


def test_a_name_is_no_markup(record):
    hostile = replace(record, name="<script>alert(1)</script>", message="<b>")

    assert "<script>alert" not in html.page(hostile, ["objective"])


def test_what_cannot_be_drawn_says_why(record):
    failed = [trial for trial in record.trials if trial.objective is None]

    with pytest.raises(ExperimentError, match="no trial of experiment 'mixed' has an objective yet"):
        drawable(replace(record, trials=failed), "slices")
    with pytest.raises(ExperimentError, match="has values of 'f1' yet"):
        drawable(record, "curves", "f1")
    with pytest.raises(ConfigurationError, match="'pie' is not a kind of plot; known: objective, curves"):
        drawable(record, "pie")
    with pytest.raises(ExperimentError, match="contour needs 2 parameters"):
        html.page(record, ["contour"])


def test_nothing_is_drawn_of_an_experiment_without_trials(record):
    with pytest.raises(ExperimentError, match="nothing to be drawn"):
        png.picture(replace(record, trials=[]), tuple(KINDS))
