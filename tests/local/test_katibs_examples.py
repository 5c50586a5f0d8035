"""Experiments of the shapes of Katib's own examples, with a small script in the place of their images' trainings.

docs/local.md lists which of Katib's examples these are, and why the others do not run here.
"""

import base64
import json
import shutil

import pytest
from homes import Local
from test_collectors import NAME, TENSORS

from katib_callbacks.errors import ConfigurationError

TRAINING = f"""
import argparse, base64, json, os, pathlib
parser = argparse.ArgumentParser()
for option in ("--lr", "--momentum", "--num-layers", "--optimizer", "--epochs", "--num-epochs", "--batch-size",
               "--num-steps", "--checkpoint", "--log-path", "--log_dir", "--logger", "--metric"):
    parser.add_argument(option)
given = parser.parse_args()
quality = 1 - float(given.lr)
print(json.dumps(vars(given)))
if given.log_dir:
    folder = pathlib.Path(given.log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / {NAME!r}).write_bytes(base64.b64decode({base64.b64encode(TENSORS)!r}))
elif given.checkpoint:
    folder = pathlib.Path(given.checkpoint)
    before = json.loads((folder / "state").read_text()) if (folder / "state").exists() else 0
    (folder / "state").write_text(json.dumps(before + 1))
    print(f"Validation-accuracy={{quality}}")
elif given.logger == "hypertune":
    lines = [json.dumps({{"accuracy": str(quality), "loss": "0.5", "checkpoint_path": "", "global_step": "1"}})]
    pathlib.Path(given.log_path).write_text("\\n".join(lines))
elif given.log_path:
    text = "{{metricName: accuracy, metricValue: %.4f}};{{metricName: loss, metricValue: 0.5}}" % quality
    pathlib.Path(given.log_path).write_text("2026-01-01T00:00:00Z INFO     " + text + "\\n")
elif given.metric:
    print(f"[1]\\tvalid_1 auc : {{quality}}\\n[1]\\ttraining auc : 0.9")
elif os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == "0":
    print("INFO:root:Epoch[0] Train-accuracy=0.5")
    print(f"INFO:root:Epoch[0] Validation-accuracy={{quality}} loss={{1 - quality}}")
"""

LR = {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "0.03"}}
LAYERS = {"name": "num-layers", "parameterType": "int", "feasibleSpace": {"min": "2", "max": "5"}}
OPTIMIZER = {"name": "optimizer", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd", "adam", "ftrl"]}}
MOMENTUM = {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0.3", "max": "0.7"}}


def number(name, low, high, kind="double", **space):
    return {"name": name, "parameterType": kind, "feasibleSpace": {"min": low, "max": high, **space}}


def words(parameters, *more):
    """Return the command of an example, one option for each parameter."""
    options = (f"--{one['name'].replace('_', '-')}=${{trialParameters.{one['name']}}}" for one in parameters)
    return ["python3", "training.py", *options, *more]


def job(command, kind="Job"):
    """Return a ``trialSpec`` and its primary container's name, as the examples of a kind have them."""
    name = {"PyTorchJob": "pytorch", "TFJob": "tensorflow", "XGBoostJob": "xgboost", "MPIJob": "mpi-launcher"}.get(kind)
    container = {
        "name": name or "training-container",
        "image": "docker.io/kubeflowkatib/some:latest",
        "command": command,
    }
    pod = {"restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    specs = {
        "Job": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}},
        "PyTorchJob": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, **pod}, "Worker": {"replicas": 1, **pod}}},
        "XGBoostJob": {"xgbReplicaSpecs": {"Master": {"replicas": 1, **pod}, "Worker": {"replicas": 2, **pod}}},
        "TFJob": {"tfReplicaSpecs": {"Worker": {"replicas": 2, **pod}}},
        "MPIJob": {
            "slotsPerWorker": 1,
            "cleanPodPolicy": "Running",
            "mpiReplicaSpecs": {
                "Launcher": {"replicas": 1, **pod},
                "Worker": {
                    "replicas": 2,
                    "template": {"spec": {"containers": [{"name": "mpi-worker", "image": "some"}]}},
                },
            },
        },
        "TrainJob": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"numNodes": 2, "image": "some", "command": command},
        },
    }
    groups = {"Job": "batch/v1", "TrainJob": "trainer.kubeflow.org/v1alpha1"}
    spec = {"apiVersion": groups.get(kind, "kubeflow.org/v1"), "kind": kind, "spec": specs[kind]}
    return spec, "node" if kind == "TrainJob" else container["name"]


def example(
    parameters=(LR, LAYERS, OPTIMIZER), *more, algorithm="random", kind="Job", objective=None, settings=None, **spec
):
    """Return an experiment like Katib's, with fewer trials."""
    template, container = job(words(parameters, *more), kind)
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"namespace": "kubeflow", "name": "one"},
        "spec": {
            "objective": objective
            or {
                "type": "maximize",
                "goal": 0.999,
                "objectiveMetricName": "Validation-accuracy",
                "additionalMetricNames": ["Train-accuracy"],
            },
            "algorithm": {
                "algorithmName": algorithm,
                "algorithmSettings": [{"name": name, "value": value} for name, value in (settings or {}).items()],
            },
            "parallelTrialCount": 2,
            "maxTrialCount": 2,
            "maxFailedTrialCount": 2,
            "parameters": list(parameters),
            "trialTemplate": {
                "primaryContainerName": container,
                "trialParameters": [
                    {"name": one["name"], "description": "of the training", "reference": one["name"]}
                    for one in parameters
                ],
                "trialSpec": template,
            },
            **spec,
        },
    }


def collector(kind, source):
    return {"metricsCollectorSpec": {"collector": {"kind": kind}, "source": source}}


ACCURACY = {"type": "maximize", "goal": 0.999, "objectiveMetricName": "accuracy", "additionalMetricNames": ["loss"]}
LOSS = {"type": "minimize", "goal": 0.001, "objectiveMetricName": "loss"}
TORCH = (number("lr", "0.01", "0.05"), number("momentum", "0.5", "0.9"))
FILTER = r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}"
JSON_FILE = {"fileSystemPath": {"path": "/katib/mnist.json", "kind": "File", "format": "JSON"}}
TEXT_FILE = {"fileSystemPath": {"path": "/katib/mnist.log", "kind": "File"}, "filter": {"metricsFormat": [FILTER]}}
MEDIAN_STOP = {
    "earlyStopping": {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "1"}, {"name": "start_step", "value": "2"}],
    }
}
AUC = {
    "type": "maximize",
    "goal": 0.999,
    "objectiveMetricName": "valid_1 auc",
    "additionalMetricNames": ["training auc"],
}

RUN = {
    "hp-tuning/random": example(),
    "hp-tuning/grid": example((number("lr", "0.01", "0.03", step="0.005"), LAYERS), algorithm="grid"),
    "hp-tuning/tpe": example(algorithm="tpe"),
    "hp-tuning/multivariate-tpe": example(algorithm="multivariate-tpe"),
    "hp-tuning/cma-es": example(
        algorithm="cmaes", settings={"restart_strategy": "none"}, parameters=(LR, LAYERS, OPTIMIZER)
    ),
    "hp-tuning/sobol": example(algorithm="sobol"),
    "hp-tuning/hyperband": example(
        (LR, LAYERS, OPTIMIZER, number("num-epochs", "1", "1", "int")),
        algorithm="hyperband", settings={"resource_name": "num-epochs", "eta": "2", "r_l": "2"},
    ),
    "hp-tuning/hyperopt-distribution": example(
        (
            number("lr", "0.01", "0.05", step="0.01", distribution="normal"),
            number("momentum", "0.001", "1", distribution="uniform"),
            number("epochs", "1", "3", "int", distribution="logUniform"),
            number("batch_size", "32", "64", "int", distribution="logNormal"),
        ),
        objective=LOSS,
    ),
    "hp-tuning/optuna-distribution": example(
        (
            number("lr", "0.1", "0.5", step="0.1", distribution="uniform"),
            number("momentum", "0.001", "1", step="0.1", distribution="uniform"),
            number("epochs", "1", "3", "int", distribution="uniform"),
            number("batch_size", "32", "64", "int", distribution="logUniform"),
        ),
        algorithm="tpe", objective=LOSS,
    ),
    "hp-tuning/simple-pbt": example(
        (number("lr", "0.0001", "0.02", step="0.0001"),), "--epochs=20", "--checkpoint=/var/log/katib/checkpoints/",
        algorithm="pbt", resumePolicy="FromVolume",
        settings={
            "suggestion_trial_dir": "/var/log/katib/checkpoints/", "n_population": "40", "truncation_threshold": "0.2",
        },
        objective={"type": "maximize", "goal": 1.5, "objectiveMetricName": "Validation-accuracy"},
    ),
    "early-stopping/median-stop": example(**MEDIAN_STOP),
    "early-stopping/median-stop-with-json-format": example(
        (LR, number("num-epochs", "3", "4", "int")), "--log-path=/katib/mnist.json", "--logger=hypertune",
        objective=ACCURACY, **MEDIAN_STOP, **collector("File", JSON_FILE),
    ),
    "metrics-collector/file-metrics-collector": example(
        (LR, MOMENTUM), "--epochs=1", "--log-path=/katib/mnist.log", objective=ACCURACY, **collector("File", TEXT_FILE)
    ),
    "metrics-collector/file-metrics-collector-with-json-format": example(
        (LR, MOMENTUM), "--epochs=1", "--log-path=/katib/mnist.json", "--logger=hypertune",
        objective=ACCURACY, **collector("File", JSON_FILE),
    ),
    "metrics-collector/metrics-collection-strategy": example(
        algorithm="tpe",
        objective={
            "type": "maximize", "goal": 0.999, "objectiveMetricName": "Validation-accuracy",
            "additionalMetricNames": ["Train-accuracy"],
            "metricStrategies": [
                {"name": "Train-accuracy", "value": "latest"}, {"name": "Validation-accuracy", "value": "max"},
            ],
        },
    ),
    "metrics-collector/tfevent-metrics-collector": example(
        (LR,), "--log_dir=/train/metrics", objective={**LOSS, "type": "maximize", "goal": 99.0},
        **collector("TensorFlowEvent", {"fileSystemPath": {"path": "/train", "kind": "Directory"}}),
    ),
    "kubeflow-training-operator/pytorchjob-mnist": example(TORCH, "--epochs=1", kind="PyTorchJob", objective=LOSS),
    "kubeflow-training-operator/tfjob-mnist-with-summaries": example(
        (LR,), "--log_dir=/summaries/test", kind="TFJob", objective={**LOSS, "type": "maximize", "goal": 99.0},
        **collector("TensorFlowEvent", {"fileSystemPath": {"path": "/summaries/test", "kind": "Directory"}}),
    ),
    "kubeflow-training-operator/xgboostjob-lightgbm, with a command": example(
        (LR,), "--metric=auc", kind="XGBoostJob", objective=AUC,
        metricsCollectorSpec={"source": {"filter": {"metricsFormat": [r"(\w+\s\w+)\s:\s((-?\d+)(\.\d+)?)"]}}},
    ),
    "kubeflow-training-operator/mpijob-horovod": example(
        (LR, number("num-steps", "50", "150", "int", step="10")), kind="MPIJob", objective=LOSS
    ),
    "kubeflow-trainer/trainjob-pytorch": example(TORCH, "--epochs=1", kind="TrainJob", objective=LOSS),
    "resume-experiment/from-volume-resume": example(resumePolicy="FromVolume"),
    "resume-experiment/long-running-resume": example(resumePolicy="LongRunning"),
    "resume-experiment/never-resume": example(resumePolicy="Never"),
}  # fmt: skip
"""Beside these hp-tuning/bayesian-optimization, whose library is not wherever these run, is run with the examples of
this repository, and trial-template/trial-metadata-substitution as well."""


@pytest.fixture
def katibs(local):
    (local.folder / "training.py").write_text(TRAINING)
    return local


@pytest.mark.parametrize("name", RUN)
def test_experiments_like_katibs_own_run_here(katibs, name):
    one = RUN[name]
    if "mpijob" in name:
        if shutil.which("mpirun") is None:
            pytest.skip("there is no mpirun: install OpenMPI (Debian: apt-get install openmpi-bin)")
        launcher = one["spec"]["trialTemplate"]["trialSpec"]["spec"]["mpiReplicaSpecs"]["Launcher"]
        container = launcher["template"]["spec"]["containers"][0]
        if container["command"] != ["mpirun"]:
            container["args"] = [
                "-np",
                "2",
                "--allow-run-as-root",
                "-bind-to",
                "none",
                "-x",
                "PATH",
                *container["command"],
            ]
            container["command"] = ["mpirun"]
    status = katibs.run(one).status

    shown = [trial.conditions[-1] for trial in katibs.trials()]
    assert (status.trials, status.trials_succeeded) == (2, 2), shown
    assert status.conditions[-1].reason == "ExperimentMaxTrialsReached"
    best = status.current_optimal_trial
    (objective, *_) = best.observation.metrics
    assert objective.latest != "unavailable"
    assigned = {one.name: one.value for one in best.parameter_assignments}
    if objective.name in {"Validation-accuracy", "accuracy", "valid_1 auc"}:
        assert float(objective.latest) == pytest.approx(1 - float(assigned["lr"]), abs=1e-4), "of its own trial"


WITHOUT_A_COMMAND = example((LR,), kind="XGBoostJob")
_master = WITHOUT_A_COMMAND["spec"]["trialTemplate"]["trialSpec"]["spec"]["xgbReplicaSpecs"]["Master"]
_container = _master["template"]["spec"]["containers"][0]  # of the workers, too
_container["args"] = _container.pop("command")[2:]


def elsewhere(kind, api_version):
    """Return an experiment whose trials are objects of another controller."""
    one = example((LR,))
    one["spec"]["trialTemplate"]["trialSpec"] = {
        "apiVersion": api_version, "kind": kind, "spec": {"steps": ["--lr=${trialParameters.lr}"]},
    }  # fmt: skip
    return one


def architecture_search():
    one = example((LR,), algorithm="darts")
    del one["spec"]["parameters"]
    one["spec"]["nasConfig"] = {"graphConfig": {"numLayers": 1}, "operations": []}
    one["spec"]["trialTemplate"]["trialParameters"][0]["reference"] = "algorithm-settings"
    return one


def config_map():
    one = example((LR,))
    del one["spec"]["trialTemplate"]["trialSpec"]
    one["spec"]["trialTemplate"]["configMap"] = {
        "configMapName": "trial-templates", "configMapNamespace": "kubeflow", "templatePath": "default.yaml",
    }  # fmt: skip
    return one


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (WITHOUT_A_COMMAND, "command: must be specified; the image's own command is not known here"),
        (elsewhere("Workflow", "argoproj.io/v1alpha1"), "kind: 'Workflow' cannot run on one machine"),
        (elsewhere("PipelineRun", "tekton.dev/v1"), "kind: 'PipelineRun' cannot run on one machine"),
        (architecture_search(), "nasConfig"),
        (config_map(), "there is no config map here; write trialSpec"),
        (
            example((LR,), **collector("Custom", {"fileSystemPath": {"path": "/katib/mnist.log", "kind": "File"}})),
            "'Custom' does not collect here",
        ),
    ],
)
def test_what_does_not_run_here_is_refused_with_its_reason(katibs: Local, one, reason):
    with pytest.raises(ConfigurationError, match=reason):
        katibs.run(json.loads(json.dumps(one)))
