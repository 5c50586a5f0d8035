"""An OptimizationJob of Kubeflow Trainer on one machine: judged as by its CRD, run as trials, told as by its API."""

import copy
import json
import sys
import threading
import time

import pytest

from katib_callbacks.cli import main
from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local.api.manifest import read, read_file
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state import states
from katib_callbacks.local.state.budget import edit_budget
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.trainer.objects import stored_object, stored_trial

REPORT = "import os\nfrom katib_callbacks import KatibReporter\nx = os.environ['KUBEFLOW_TRAINER_OPT_X']\n"
LOSS = f"{REPORT}with KatibReporter() as reporter: reporter.report({{'loss': float(x), 'other': 1}})"

SPEC = {
    "objectives": [{"metric": "loss"}],
    "numTrials": 3,
    "parallelTrials": 2,
    "parameters": [{"name": "x", "searchSpace": {"uniform": {"min": "0", "max": "1"}}}],
}


def job(code=LOSS, name="one", *, trainer=None, train_job=None, **spec):
    """Return an OptimizationJob as a mapping, whose trials run ``code``."""
    template = {
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"command": [sys.executable, "-c", code], **(trainer or {})},
            **(train_job or {}),
        }
    }
    return copy.deepcopy(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "OptimizationJob",
            "metadata": {"name": name, "namespace": "team"},
            "spec": {**SPEC, "trainJobTemplate": template, **spec},
        }
    )


def run(local, one):
    """Run it to its end; returns the object of the API, and those of its trials."""
    name = local.store(one)
    Runner(local.home, name).run()
    return objects(local, name)


def objects(local, name="one"):
    with ExperimentStore(database(local.home)) as store:
        row, trials = store.experiment(name), store.trials(name)
        return stored_object(row, trials), [stored_trial(row, trial, local.home) for trial in trials]


def shown(train_job):
    return {one["name"]: one["value"] for one in train_job["status"]["trainerStatus"]["metrics"]}


def variables(train_job):
    return {one["name"]: one["value"] for one in train_job["spec"]["trainer"]["env"]}


def condition(one):
    return {key: value for key, value in one["status"]["conditions"][-1].items() if key != "lastTransitionTime"}


def choices(name, *values):
    return {"name": name, "searchSpace": {"categorical": {"choices": list(values)}}}


def test_it_runs_to_complete_with_its_best_trial(local):
    done, trials = run(local, job())

    assert [one["type"] for one in done["status"]["conditions"]] == ["Created", "Complete"]
    assert condition(done) == {
        "type": "Complete",
        "status": "True",
        "reason": "OptimizationJobCompleted",
        "message": "All trials have completed successfully",
    }
    assert len(trials) == 3
    best = min(trials, key=lambda one: float(shown(one)["loss"]))
    value = variables(best)["KUBEFLOW_TRAINER_OPT_X"]
    assert done["status"]["result"] == {
        "trainJobName": best["metadata"]["name"],
        "parameters": [{"name": "x", "value": value}],
    }
    assert shown(best) == {"loss": value, "other": "1"}
    assert condition(best)["type"] == "Complete"
    assert best["metadata"]["namespace"] == "team"
    assert done["spec"]["searchAlgorithm"] == {"random": {}}
    assert done["spec"]["objectives"] == [{"metric": "loss", "direction": "Minimize"}]


def test_the_last_status_decides_and_what_it_lacks_is_gone(local):
    code = f"{REPORT}KatibReporter().report({{'loss': 1.0}})\nKatibReporter().report({{'loss': 2.0}})"
    done, trials = run(local, job(code, objectives=[{"metric": "loss", "direction": "Maximize"}], numTrials=2))

    assert [shown(one)["loss"] for one in trials] == ["2", "2"]
    assert done["status"]["result"]["trainJobName"] == trials[0]["metadata"]["name"]

    post = (
        "import json, os, ssl, urllib.request\n"
        "def post(**status):\n"
        "    e = {name: os.environ['KUBEFLOW_TRAINER_SERVER_' + name] for name in ('URL', 'CA_CERT', 'TOKEN')}\n"
        "    body = json.dumps({'trainerStatus': {'lastUpdatedTime': '2026-01-31T12:00:00Z', **status}}).encode()\n"
        "    request = urllib.request.Request(e['URL'], body, {'Authorization': 'Bearer ' + open(e['TOKEN']).read()})\n"
        "    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=e['CA_CERT'])).read()\n"
    )
    lost = f"{post}post(metrics=[{{'name': 'loss', 'value': '1'}}])\npost(progressPercentage=100)"
    done, trials = run(local, job(lost, "lost", numTrials=1, parallelTrials=1))
    assert condition(done)["reason"] == "ObjectiveMetricMissing"
    assert "metrics" not in trials[0]["status"]["trainerStatus"]


def test_a_trial_that_fails_fails_the_whole(local):
    done, trials = run(local, job("raise SystemExit('no data')", numTrials=8, parallelTrials=1))

    assert condition(done) == {
        "type": "Failed",
        "status": "True",
        "reason": "TrialFailed",
        "message": "1 trial(s) failed",
    }
    assert "result" not in done["status"]
    assert len(trials) == 1
    assert condition(trials[0])["type"] == "Failed"


def test_a_trial_without_the_objective_fails_the_whole(local):
    done, (trial,) = run(local, job(LOSS.replace("'loss'", "'lost'"), parallelTrials=1))

    assert condition(done)["reason"] == "ObjectiveMetricMissing"
    assert 'valid objective metric "loss"' in condition(done)["message"]
    assert condition(trial)["type"] == "Complete", "the TrainJob itself has done well"


def test_every_kind_of_parameter_reaches_a_trial(local):
    spaces = [
        {"name": "x", "searchSpace": {"logUniform": {"min": "1e-4", "max": "0.1"}}},
        {"name": "layers", "searchSpace": {"uniform": {"min": "1.5", "max": "3.5", "type": "Int"}}},
        {"name": "width", "searchSpace": {"logUniform": {"min": "8", "max": "64", "type": "Int"}}},
        choices("opt.kind", "sgd", "adam w"),
    ]
    _, trials = run(local, job(parameters=spaces, numTrials=4))

    for trial in trials:
        given = variables(trial)
        assert 1e-4 <= float(given["KUBEFLOW_TRAINER_OPT_X"]) <= 0.1
        assert given["KUBEFLOW_TRAINER_OPT_LAYERS"] in {"2", "3"}
        assert 8 <= int(given["KUBEFLOW_TRAINER_OPT_WIDTH"]) <= 64
        assert given["KUBEFLOW_TRAINER_OPT_OPT.KIND"] in {"sgd", "adam w"}
        assert shown(trial)["loss"] == given["KUBEFLOW_TRAINER_OPT_X"]


def test_grid_tries_every_choice_once(local, caplog):
    one = job(searchAlgorithm={"grid": {}}, parameters=[choices("x", "1", "2"), choices("b", "3", "4")], numTrials=9)
    done, trials = run(local, one)

    points = [(variables(one)["KUBEFLOW_TRAINER_OPT_X"], variables(one)["KUBEFLOW_TRAINER_OPT_B"]) for one in trials]
    assert sorted(points) == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]
    assert condition(done)["type"] == "Complete"
    assert "the grid has 4 points, so there are 4 trials" in caplog.text


def test_a_seed_of_64_bits_repeats_the_search(local):
    seeded = {"searchAlgorithm": {"random": {"seed": -(2**63)}}}
    first, second = ([variables(one) for one in run(local, job(name=name, **seeded))[1]] for name in ("one", "two"))

    assert first == second


def test_a_trial_knows_no_trial_of_katib_and_has_its_arguments_filled_in(local):
    code = f"import sys\n{REPORT}assert sys.argv[1] == '--x=' + x\nassert 'KATIB_TRIAL_NAME' not in os.environ\n{LOSS}"
    done, _ = run(local, job(code, trainer={"args": ["--x=$(KUBEFLOW_TRAINER_OPT_X)"]}, numTrials=1, parallelTrials=1))

    assert condition(done)["type"] == "Complete"


def test_a_stopped_one_goes_on_where_it_was(local):
    gate = local.folder / "gate"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
    name = local.store(job(wait + LOSS))
    runner = Runner(local.home, name)
    runner.start()
    try:
        while sum(trial.state == states.RUNNING for trial in local.trials(name)) < 2:
            time.sleep(0.02)
    finally:
        runner.stop()
    stopped = [trial.name for trial in local.trials(name)]
    done, _ = objects(local)
    assert [one["type"] for one in done["status"]["conditions"]] == ["Created"]

    gate.touch()
    Runner(local.home, name).run()
    done, trials = objects(local)
    assert condition(done)["type"] == "Complete"
    assert [one["metadata"]["name"] for one in trials][:2] == stopped
    assert len(trials) == 3


def test_the_commands_treat_it_like_an_experiment(local, capsys, monkeypatch):
    monkeypatch.chdir(local.folder)
    path, home = local.folder / "job.json", ["--home", str(local.home)]
    path.write_text(json.dumps(job("print('hello')\n" + LOSS)))

    assert main(["experiment", "run", str(path), *home]) == 0
    assert "experiment one is Complete: All trials have completed successfully" in capsys.readouterr().out
    assert main(["experiment", "list", *home]) == 0
    assert "Complete" in capsys.readouterr().out
    assert main(["experiment", "list", "--json", *home]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "OptimizationJob"
    assert main(["experiment", "status", "one", "--json", *home]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in (told["experiment"], *told["trials"])] == ["OptimizationJob", *["TrainJob"] * 3]
    assert main(["experiment", "logs", "one", *home]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert main(["experiment", "edit", "one", "--max-trial-count", "9", *home]) == 1
    assert "its spec is immutable" in capsys.readouterr().err
    assert main(["experiment", "delete", "one", *home]) == 0
    assert not (local.home / "one").exists()


def test_its_budget_cannot_be_edited(local):
    name = local.store(job())

    with ExperimentStore(database(local.home)) as store, pytest.raises(ExperimentError, match="immutable"):
        edit_budget(store, name, max_trial_count=9)


def test_what_a_running_trial_shows_can_be_seen(local):
    gate = local.folder / "gate"
    code = (
        f"import pathlib, time\n{REPORT}reporter = KatibReporter()\nreporter.report({{'loss': 7}})\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
    )
    name = local.store(job(code, numTrials=1, parallelTrials=1))
    runner = threading.Thread(target=Runner(local.home, name).run)
    runner.start()
    try:
        while not (local.trials(name) and objects(local)[1][0].get("status")):
            time.sleep(0.02)
        status = objects(local)[1][0]["status"]
    finally:
        gate.touch()
        runner.join()
    assert "conditions" not in status
    assert status["trainerStatus"]["metrics"] == [{"name": "loss", "value": "7"}]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"objectives": []}, "spec.objectives: must have exactly one objective, not 0"),
        ({"objectives": [{"metric": "a"}, {"metric": "b"}]}, "spec.objectives: must have exactly one objective, not 2"),
        ({"objectives": [{"metric": "x" * 65}]}, "spec.objectives[0].metric: must have 64 characters at most"),
        (
            {"objectives": [{"metric": "x", "direction": "maximize"}]},
            "spec.objectives[0].direction: must be Minimize or",
        ),
        ({"objectives": [{"metric": "x", "goal": 1}]}, "spec.objectives[0].goal: Kubeflow Trainer knows no such field"),
        ({"searchAlgorithm": {}}, "spec.searchAlgorithm: must have exactly one of random, grid; it has none"),
        ({"searchAlgorithm": {"tpe": {}}}, "spec.searchAlgorithm.tpe: Kubeflow Trainer knows no such field"),
        ({"searchAlgorithm": {"random": {"seed": 2**63}}}, "spec.searchAlgorithm.random.seed"),
        ({"searchAlgorithm": {"grid": {}}}, "spec.parameters[0].searchSpace: must be categorical"),
        ({"parameters": []}, "spec.parameters: must have 1 to 100 parameters, not 0"),
        ({"parameters": [choices("a", "1"), choices("a", "1")]}, "spec.parameters[1].name: 'a' stands there twice"),
        ({"parameters": [choices("", "1")]}, "spec.parameters[0].name: must be specified"),
        ({"parameters": [choices("a")]}, "categorical.choices: must have 1 to 100 choices, not 0"),
        ({"parameters": [choices("a", "1", "1")]}, "categorical.choices[1]: '1' stands there twice"),
        ({"parameters": [choices("a", "1" * 65)]}, "categorical.choices[0]: must have 64 characters at most"),
        ({"parameters": [choices("a", 1)]}, "categorical.choices[0]: must be a string, not the int 1"),
        ({"parameters": [{"name": "a"}]}, "spec.parameters[0].searchSpace: must be specified"),
        (
            {"parameters": [{"name": "a", "searchSpace": {}}]},
            "exactly one of uniform, logUniform, categorical; it has none",
        ),
        ({"numTrials": 0}, "spec.numTrials: must be 1 to 100, not 0"),
        ({"numTrials": 101}, "spec.numTrials: must be 1 to 100, not 101"),
        ({"numTrials": None}, "spec.parallelTrials: 2 is above numTrials 1 (the default)"),
        ({"parallelTrials": 4}, "spec.parallelTrials: 4 is above numTrials 3"),
        ({"trainJobTemplate": None}, "spec.trainJobTemplate: must be specified"),
        (
            {"parameters": [{"name": "a", "searchSpace": {"uniform": {"min": "1", "max": "2", "type": "Long"}}}]},
            "uniform.type: must be Float or Int, not 'Long'",
        ),
        ({"earlyStopping": {}}, "spec.earlyStopping: Kubeflow Trainer knows no such field"),
    ],
)
def test_it_is_judged_as_its_crd_does(changes, fault):
    with pytest.raises(ConfigurationError) as caught:
        read(job(**changes))

    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"spec": None}, "spec: must be specified"),
        ({"apiVersion": "trainer.kubeflow.org/v2"}, "apiVersion: must be trainer.kubeflow.org/v1alpha1, not "),
    ],
)
def test_what_is_no_such_object_is_refused(changes, fault):
    with pytest.raises(ConfigurationError, match=fault):
        read({**job(), **changes})


@pytest.mark.parametrize("text", [".05", "+1", "007", "1.", "inf", "0x1", "1e", " 1"])
def test_numbers_are_written_as_the_crd_wants_them(text):
    space = {"uniform": {"min": text, "max": "9"}}
    with pytest.raises(ConfigurationError, match=r"parameters\[0\].searchSpace.uniform.min: .* must be a number"):
        read(job(parameters=[{"name": "x", "searchSpace": space}]))


@pytest.mark.parametrize(
    ("kind", "low", "high", "fault"),
    [
        ("uniform", "2", "2", "uniform: min 2 must be below max 2"),
        ("uniform", "-1", "-2", "uniform: min -1 must be below max -2"),
        ("logUniform", "0", "1", "logUniform.min: must be above 0, not 0"),
        ("uniform", 1, "2", "uniform.min: must be a string, not the int 1"),
        ("uniform", None, "2", "uniform.min: must be specified"),
    ],
)
def test_ranges(kind, low, high, fault):
    space = {kind: {"min": low, "max": high}}
    with pytest.raises(ConfigurationError) as caught:
        read(job(parameters=[{"name": "x", "searchSpace": space}]))
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (job(trainer={"comand": []}), r"spec.trainer.comand: .* did you mean command\?"),
        (job(trainer={"env": [{"name": "A", "value": 1}]}), r"spec.trainer.env\[0\].value: must be a string"),
        (
            job(trainer={"env": [{"name": "A"}, {"name": "A"}]}),
            r"spec.trainer.env\[1\].name: must be specified, and only",
        ),
        (job(train_job={"activeDeadlineSeconds": 0}), "activeDeadlineSeconds: must be at least 1, not 0"),
        (
            job(trainer={"env": [{"name": f"A{number}"} for number in range(200)]}),
            r"spec.trainer.env: must have \d+ variables at most, not 200",
        ),
        (job(train_job={"runtimeRef": {}}), "spec.trainJobTemplate.spec.runtimeRef.name: must be specified"),
        ({**job(), "metadata": {}}, "metadata.name: must be specified"),
        ({**job(), "apiVersion": "kubeflow.org/v1beta1"}, "apiVersion: must be trainer.kubeflow.org/v1alpha1"),
    ],
)
def test_its_template_is_judged_too(one, fault):
    with pytest.raises(ConfigurationError, match=fault):
        read(one)


def test_a_trials_name_is_not_the_templates_to_give():
    one = job()
    one["spec"]["trainJobTemplate"]["metadata"] = {"name": "mine", "labels": {"team": "a"}}
    with pytest.raises(ConfigurationError, match=r"spec\.trainJobTemplate\.metadata\.name: must be omitted"):
        read(one)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"parameters": [choices("lr", "1"), choices("LR", "1")]}, r"parameters\[1\].name: 'LR' and 'lr' are both"),
        ({"parameters": [choices("a=b", "1")]}, r"parameters\[0\].name: 'a=b' cannot be part of a variable"),
        (
            {"parameters": [{"name": "x", "searchSpace": {"uniform": {"min": "1.2", "max": "1.8", "type": "Int"}}}]},
            r"parameters\[0\].searchSpace.uniform: no whole number lies between 1.2 and 1.8",
        ),
        ({"trainer": {"command": None}}, "spec.trainJobTemplate.spec.trainer.command: must be specified"),
    ],
)
def test_what_is_legal_and_cannot_run_here_is_refused_before_it_begins(local, changes, fault):
    with pytest.raises(ConfigurationError, match=fault):
        local.store(job(**changes))


def test_a_file_may_hold_both_kinds(tmp_path):
    path = tmp_path / "both.json"
    other = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "katib"}}
    path.write_text(json.dumps({"kind": "List", "items": [other, job()]}))

    assert read_file(path, "one").spec.num_trials == 3
    with pytest.raises(ConfigurationError, match="holds 2 documents of kind Experiment or OptimizationJob"):
        read_file(path)
