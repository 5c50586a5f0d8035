"""Examples that are run, as the documents say: from the repository's root, by the command; and the script."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from homes import Local, experiment
from katibs_status import check

from katib_callbacks.cli import main
from katib_callbacks.local.algorithms.pbt import GENERATION, PARENT
from katib_callbacks.local.api.manifest import read_file
from katib_callbacks.local.queries import Queries
from katib_callbacks.local.state.store import ExperimentStore

ROOT = Path(__file__).parents[2]

sys.path.append(str(ROOT / "examples" / "experiments"))

TESTED_ALONE = {
    *("pytorchjob", "pytorchjob-processes", "trainjob", "tfjob", "mpijob", "environment", "custom-filter", "hyperband"),
    *("file-collector", "pbt", "metric-strategies"),
}
NEED_MORE = {"bayesian-optimization": "torch", "lightning-digits": "lightning"}
OTHERS = sorted({path.stem for path in (ROOT / "examples" / "experiments").glob("*.yaml")} - TESTED_ALONE)

from train import train  # noqa: E402  the script of the examples


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example to its end; returns what answers for its home."""
    monkeypatch.chdir(ROOT)

    def run_one(name):
        path = Path("examples", "experiments", f"{name}.yaml")
        assert main(["experiment", "run", str(path), "--home", str(tmp_path)]) == 0
        queries = Queries(tmp_path)
        check(queries, name, path)
        return queries

    return run_one


@pytest.mark.parametrize("name", OTHERS)
def test_the_status_is_what_katibs_controller_gives(name, monkeypatch, tmp_path):
    if name == "lightning-digits" or (name in NEED_MORE and find_spec(NEED_MORE[name]) is None):
        pytest.skip("it needs a framework, and time: its status is that of any other")
    monkeypatch.chdir(ROOT)
    path = Path("examples", "experiments", f"{name}.yaml")
    one = read_file(path)
    is_grid = one.spec.algorithm.algorithm_name == "grid"
    one.spec.max_trial_count = one.spec.max_trial_count if is_grid else 2
    one.spec.parallel_trial_count, one.spec.max_failed_trial_count = 2, min(one.spec.max_failed_trial_count or 0, 2)
    local = Local(tmp_path / "home", ROOT)
    local.run(one)

    check(local.queries, name, path, max_trials=one.spec.max_trial_count)


@pytest.mark.parametrize(
    ("script", "failing", "goal", "limit"),
    [
        pytest.param("echo loss=${trialParameters.lr}", {}, 0.1, 3, id="goal"),
        pytest.param("exit 3", {"0.1": "exit status 3", "0.2": "exit status 3"}, None, 1, id="failed"),
        pytest.param("echo nothing", {}, None, 1, id="unavailable"),
        pytest.param(
            "test ${trialParameters.lr} = 0.1 && kill -9 $$$$; echo loss=1 loss=0.5 loss=0.75",
            {"0.1": "killed by SIGKILL"}, None, 2, id="one of two",
        ),
        pytest.param("echo loss=1e-3 loss=NaN accuracy=.5", {}, None, None, id="end of the grid"),
    ],
)  # fmt: skip
def test_the_status_of_other_outcomes_is_katibs_as_well(local, script, failing, goal, limit):
    one = experiment(metricsCollectorSpec={"collector": {"kind": "StdOut"}}, maxTrialCount=5, parallelTrialCount=1)
    spec = one["spec"]
    del spec["maxTrialCount"]
    spec["algorithm"] = {"algorithmName": "grid"}
    spec["objective"] |= {"additionalMetricNames": ["accuracy"], **({} if goal is None else {"goal": goal})}
    spec["parameters"] = [
        {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.2", "step": "0.1"}}
    ]
    spec |= {} if limit is None else {"maxFailedTrialCount": limit}
    template = spec["trialTemplate"]
    template["trialParameters"] = [{"name": "lr", "reference": "lr"}]
    container = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["sh", "-c", script], "env": [{"name": "LR", "value": "${trialParameters.lr}"}]}
    path = local.folder / "one.yaml"
    path.write_text(yaml.safe_dump({"kind": "Experiment", **one}))
    local.run(read_file(path))

    def failure(assignments):
        message = failing.get(assignments["lr"])
        return message and ("BackoffLimitExceeded", message)

    check(local.queries, "one", path, failing=failure)


def values(queries, trial, metric):
    return [log.metric.value for log in queries.get_trial_metrics(trial.metadata.name) if log.metric.name == metric]


@pytest.mark.parametrize(
    ("name", "size"),
    [("pytorchjob", "3"), ("pytorchjob-processes", "2"), ("trainjob", "4"), ("tfjob", "1"), ("mpijob", "2")],
)
def test_of_all_processes_of_a_trial_one_reports(run, name, size):
    if name == "mpijob" and shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun: install OpenMPI (Debian: apt-get install openmpi-bin)")
    queries = run(name)

    for trial in queries.list_trials(name):
        assert values(queries, trial, "world-size") == [size]
        assert len(values(queries, trial, "loss")) == 1


def test_a_trials_environment(run):
    queries = run("environment")

    for trial in queries.list_trials("environment"):
        (assignment,) = trial.spec.parameter_assignments
        shown, *losses, _ = queries.get_job_logs("environment", trial.metadata.name)
        assert shown == f"POD is {trial.metadata.name}"
        assert losses == [f"loss={loss:.6f}" for loss in train(float(assignment.value), 0.0, 20)]


def test_a_filter_of_ones_own(run):
    queries = run("custom-filter")

    for trial in queries.list_trials("custom-filter"):
        losses = train(float(trial.spec.parameter_assignments[0].value), 0.0, 20)
        assert values(queries, trial, "loss") == [f"{loss:.6f}" for loss in losses]


def test_hyperband_runs_a_few_trials_for_longer(run):
    queries = run("hyperband")

    epochs = []
    for trial in queries.list_trials("hyperband"):
        assigned = {one.name: one.value for one in trial.spec.parameter_assignments}
        epochs.append(int(assigned["epochs"]))
    assert sorted(epochs) == [1] * 9 + [3] * 8 + [9] * 6
    best = queries.get_optimal_hyperparameters("hyperband")
    assert {one.name: one.value for one in best.parameter_assignments}["epochs"] == "9"


def test_a_metrics_file_is_each_trials_own(run):
    queries = run("file-collector")

    last = set()
    for trial in queries.list_trials("file-collector"):
        assert len(values(queries, trial, "loss")) == 20
        last.add(values(queries, trial, "loss")[-1])
    assert len(last) > 1, "two of them may have learned it all"
    assert not Path("/katib").exists()


def test_each_generation_of_a_population_goes_on_from_the_one_before(run, tmp_path):
    queries = run("pbt")

    with ExperimentStore(tmp_path / "katib.db") as store:
        points = {row.number: row for row in store.trials("pbt")}
    named = {one.name: one.labels for one in queries.get_suggestion("pbt").status.suggestions}
    child = next(row for row in points.values() if PARENT in row.point)
    assert named[child.name] == {GENERATION: "1", PARENT: points[child.point[PARENT]].name}
    generations = [row.point[GENERATION] for row in points.values()]
    assert generations.count(0) >= 6
    assert generations.count(1) >= 3
    for number, row in points.items():
        folder = tmp_path / "pbt" / "checkpoints"
        assignments = [float(row.assignments[name]) for name in ("lr", "momentum")]
        state = folder / "expected.json"
        state.unlink(missing_ok=True)
        if PARENT in row.point:
            shutil.copy(folder / str(row.point[PARENT]) / "state.json", state)
        losses = train(*assignments, 3, state)
        assert float(values(queries, queries.get_trial(row.name), "loss")[0]) == pytest.approx(losses[-1]), number


def test_strategies(run):
    queries = run("metric-strategies")

    best = queries.get_optimal_hyperparameters("metric-strategies")
    latest = [
        float(metric.latest)
        for trial in queries.list_trials("metric-strategies")
        for metric in trial.status.observation.metrics
        if metric.name == "loss"
    ]
    assert float(next(one.latest for one in best.observation.metrics if one.name == "loss")) == min(latest)


def test_the_script_of_katibs_documentation(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "tune_push.py", "--home", tmp_path / "home"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "V1beta1OptimalTrial(best_trial_name='tune-experiment-" in done.stdout
