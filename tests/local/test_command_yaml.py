"""``katib-callbacks yaml``: what it prints is run, judged and read back."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks.cli import main
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.queries import Queries
from katib_callbacks.local.tune.command import as_yaml, parameter

TRAIN = """
import os, sys
from katib_callbacks import report_metrics
values = dict(word.split("=") for word in sys.argv[1:])
report_metrics({"accuracy": float(values["--lr"]), "words": len(values), "world": int(os.environ.get("WORLD_SIZE", 1))})
"""

COMMAND = [sys.executable, "-m", "katib_callbacks.cli"]
ASKED = ["--name", "digits", "--objective", "maximize:accuracy", "--parameter", "lr=0.5,1e-3"]
TRAINING = ["--", "python", "train.py", "--lr={lr}"]


def run_in(folder, *words, given=None):
    return subprocess.run([*COMMAND, *words], cwd=folder, input=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "source", "world"),
    [
        pytest.param([], ["-f", "-"], 1, id="Job"),
        pytest.param(["--kind", "PyTorchJob", "--workers", "2"], ["-"], 2, id="PyTorchJob"),
        pytest.param(["--kind", "TrainJob", "--workers", "2"], ["-f", "-"], 2, id="TrainJob"),
    ],
)
def test_the_experiment_runs_here_with_each_value(tmp_path, kind, source, world):
    (tmp_path / "train.py").write_text(TRAIN)
    grid = ["--algorithm", "grid", "--max-trials", "2", "--additional-metric", "world"]
    made = run_in(tmp_path, "yaml", *ASKED, *grid, *kind, *TRAINING)
    assert made.returncode == 0, made.stderr

    done = run_in(tmp_path, "experiment", "run", *source, "--home", "home", given=made.stdout)

    assert done.returncode == 0, done.stderr + done.stdout
    queries = Queries(tmp_path / "home")
    best = queries.get_optimal_hyperparameters("digits")
    assert [one.value for one in best.parameter_assignments] == ["0.5"]
    seen = {
        trial.spec.parameter_assignments[0].value: {
            one.name: float(one.latest) for one in trial.status.observation.metrics
        }
        for trial in queries.list_trials("digits")
    }
    assert seen == {"0.5": {"accuracy": 0.5, "world": world}, "1e-3": {"accuracy": 0.001, "world": world}}


def printed(capsys, *options, training=TRAINING):
    assert main(["yaml", *ASKED, *options, *training]) == 0
    shown = capsys.readouterr()
    (document,) = read_documents(shown.out)
    return document, shown.err


def test_what_is_asked_for_is_in_it(capsys):
    one, said = printed(
        capsys,
        *("--parameter", "hidden=8:64:8", "--parameter", "momentum=0:0.9", "--namespace", "team-a", "--goal", "0.99"),
        *("--algorithm", "tpe", "--setting", "gamma=0.3", "--max-trial-count", "7", "--parallel-trial-count", "2"),
        *("--max-failed-trial-count", "1", "--image", "registry.example.com/digits:2", "--env", "OMP_NUM_THREADS=1"),
        *("--early-stopping", "medianstop,start_step=2"),
        training=["--", "sh", "-c", "exec python train.py --lr {lr} -m {momentum} ${HOME} '{{a}}' {hidden}"],
    )

    assert said == ""
    assert one["metadata"] == {"name": "digits", "namespace": "team-a"}
    spec = one["spec"]
    assert spec["objective"] == {"type": "maximize", "objectiveMetricName": "accuracy", "goal": 0.99}
    assert spec["algorithm"] == {"algorithmName": "tpe", "algorithmSettings": [{"name": "gamma", "value": "0.3"}]}
    assert (spec["maxTrialCount"], spec["parallelTrialCount"], spec["maxFailedTrialCount"]) == (7, 2, 1)
    (container,) = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/digits:2"
    assert container["command"][2] == (
        "exec python train.py --lr ${trialParameters.lr} -m ${trialParameters.momentum} ${HOME} '{a}' "
        "${trialParameters.hidden}"
    )
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "KATIB_CALLBACKS_PREVIOUS_ATTEMPT": "clear",
        "KATIB_CALLBACKS_EARLY_STOPPING": "medianstop,min_trials_required=3,start_step=2,"
        'objective="accuracy",type=maximize',
        "OMP_NUM_THREADS": "1",
    }


def test_a_missing_image_and_what_a_cluster_does_otherwise_are_said(capsys):
    _, said = printed(capsys, "--algorithm", "tpe", "--setting", "n_startup_trials=2")

    assert "no --image was given" in said
    assert "warning: tpe on a cluster is hyperopt's" in said


@pytest.mark.parametrize(
    ("text", "kind", "space"),
    [
        ("lr=log:1e-4:1e-1", "double", {"min": "1e-4", "max": "1e-1", "distribution": "logUniform"}),
        ("lr=normal:-1:1.0", "double", {"min": "-1", "max": "1.0", "distribution": "normal"}),
        ("layers=1:4", "int", {"min": "1", "max": "4"}),
        ("lr=0:1:0.25", "double", {"min": "0", "max": "1", "step": "0.25"}),
        ("layers=1,2,4", "categorical", {"list": ["1", "2", "4"]}),
    ],
)
def test_a_parameter_is_read(text, kind, space):
    assert parameter(text) == {"name": text.partition("=")[0], "parameterType": kind, "feasibleSpace": space}


@pytest.mark.parametrize(
    ("options", "training", "word"),
    [
        (["--parameter", "x=1"], TRAINING, "is neither several values with commas nor a range"),
        (["--parameter", "x"], TRAINING, "write NAME=MIN:MAX"),
        (["--parameter", "x=2:1"], ["--", "t", "{lr}{x}"], "spec.parameters[1].feasibleSpace: min 2 is above max 1"),
        ([], ["--", "python", "train.py"], "the command does not use {lr}: write it where the value belongs"),
        ([], ["--", "t", "{lr}", "{rl}"], "the command has {rl}, but no --parameter has that name"),
        (["--objective", "accuracy"], TRAINING, "write maximize:METRIC or minimize:METRIC"),
        (["--name", "Digits"], TRAINING, "metadata.name: 'Digits' must consist of lower case letters"),
        (["--algorithm", "simplex"], TRAINING, "'simplex' is not one of the algorithms here"),
        (["--algorithm", "cmaes"], TRAINING, "cmaes needs two parameters of type int or double"),
        (["--workers", "2"], TRAINING, "a Job is one pod; choose --kind PyTorchJob or --kind TrainJob"),
        (["--workers", "0"], TRAINING, "--workers 0: must be at least 1"),
        (["--env", "A"], TRAINING, "--env 'A': write NAME=VALUE"),
        (["--early-stopping", "median"], TRAINING, "--early-stopping: 'median' is not known"),
        (["--max-trials", "0"], TRAINING, "spec.maxTrialCount: must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, options, training, word):
    assert main(["yaml", *ASKED, *options, *training]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert word in shown.err
    assert shown.err.count("\n") == 1


@given(st.text())
def test_a_string_stays_one_whatever_it_looks_like(text):
    assert read_documents(as_yaml({"a": [text]})) == [{"a": [text]}]


@pytest.mark.parametrize(
    "text", ["1e-4", "y", "No", "0x1F", "12:30", "2026-01-01", ".inf", "~", "null", "1_000", "- a", "<<", ""]
)
def test_a_string_that_yaml_would_read_as_something_else_stays_one(text):
    assert read_documents(as_yaml({"a": text})) == [{"a": text}]


def test_one_source_is_asked_for(capsys):
    for words in ([], ["a.yaml", "-f", "b.yaml"]):
        with pytest.raises(SystemExit):
            main(["experiment", "run", *words])
    assert "one of the arguments" in capsys.readouterr().err
