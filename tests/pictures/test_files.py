"""An experiment in files and data frames: what the store has, and no more."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from homes import experiment

from katib_callbacks.cli import main
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.records import experiment_record
from katib_callbacks.local.state.states import condition
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.metrics import parse_timestamp
from katib_callbacks.pictures.frames import export


def stored_rows(local):
    with ExperimentStore(database(local.home)) as store:
        return [
            (trial.name, row.timestamp, row.name, float(row.value))
            for trial in store.trials("mixed")
            for row in store.rows(trial.name)
            if row.value != "unavailable"
        ]


def exported(local, path, *options):
    assert main(["experiment", "export", "mixed", "--home", str(local.home), "-o", str(path), *options]) == 0
    return path


def test_a_csv_of_rows_reads_back_as_the_stores_rows(mixed, tmp_path):
    frame = pd.read_csv(exported(mixed, tmp_path / "rows.csv", "--rows"))
    read = [
        (row.trial, parse_timestamp(row.time), row.metric, float(row.value))
        for row in frame.itertuples()
        if row.value != "unavailable"
    ]

    assert len(read) == 2 * 5 * 2 + 2
    assert read == stored_rows(mixed)
    assert list(frame.value).count("unavailable") == 1


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json"])
def test_half_a_pair_of_surrogates_is_a_replacement_character_as_in_a_cluster(ending, tmp_path):
    value, home = "half \ud800", tmp_path / "home"
    parameters = [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}]
    parameters += [{"name": value, "parameterType": "categorical", "feasibleSpace": {"list": [value]}}]
    runner.create(home, experiment("", "half", parameters=parameters), folder=tmp_path)
    with ExperimentStore(database(home)) as store:
        name = store.experiment("half").manifest["spec"]["parameters"][1]["name"]
        trial = TrialRow.created("half", 0, {name: name}, {}, 0)
        store.add_trial(replace(trial, conditions=[condition("Created", "", "\udcff is no Unicode", 0.0)]))
    path = tmp_path / f"half{ending}"
    assert main(["experiment", "export", "half", "--home", str(home), "-o", str(path)]) == 0

    (row,) = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": pd.read_json}[ending](path).to_dict("records")
    assert row["parameter.half \ufffd"] == "half \ufffd"
    assert row["message"] == "\ufffd is no Unicode"


def test_a_csv_of_trials_reads_back_as_the_stores_trials(mixed, tmp_path):
    frame = pd.read_csv(exported(mixed, tmp_path / "trials.csv"))
    trials = mixed.trials("mixed")

    assert list(frame.trial) == [trial.name for trial in trials]
    assert list(frame.state) == [trial.state for trial in trials]
    assert list(frame.message) == [trial.conditions[-1]["message"] for trial in trials]
    assert [None if math.isnan(value) else value for value in frame.objective] == [trial.value for trial in trials]
    assert list(frame["parameter.x"]) == [float(trial.assignments["x"]) for trial in trials]
    assert set(frame["parameter.optimizer"]) == {"sgd"}
    assert frame["metric.accuracy.max"].notna().sum() == 3
    times = pd.to_datetime(frame.completed, utc=True).map(pd.Timestamp.timestamp)
    assert list(times) == pytest.approx([trial.completed_s for trial in trials], abs=1e-6)


@pytest.mark.parametrize("options", [(), ("--rows",)], ids=["trials", "rows"])
def test_parquet_and_data_frame_are_equal(mixed, tmp_path, options):
    read = pd.read_parquet(exported(mixed, tmp_path / "x.parquet", *options))
    frame = LocalKatibClient(home=mixed.home).to_dataframe("mixed", rows=bool(options))

    pd.testing.assert_frame_equal(read, frame)
    assert len(frame) == (23 if options else 5)


def test_json_knows_no_nan(mixed, tmp_path):
    rows = json.loads(exported(mixed, tmp_path / "x.json").read_text(), parse_constant=pytest.fail)

    assert [row["state"] for row in rows].count("Failed") == 1
    assert {row["objective"] for row in rows if row["state"] != "Succeeded"} == {None}


def test_an_experiment_without_trials_has_columns(tmp_path, mixed):
    with ExperimentStore(database(mixed.home)) as store:
        record = experiment_record(store, mixed.home, "mixed")
    empty = type(record)(**{**record.__dict__, "trials": []})
    assert export(empty, tmp_path / "x.csv", rows=False) == 0

    assert "parameter.x" in pd.read_csv(tmp_path / "x.csv").columns


def test_another_ending_is_refused(mixed, tmp_path):
    with ExperimentStore(database(mixed.home)) as store:
        record = experiment_record(store, mixed.home, "mixed")

    with pytest.raises(ConfigurationError, match=r"'x.xlsx' does not end in .csv, .json, .parquet"):
        export(record, tmp_path / "x.xlsx", rows=False)
