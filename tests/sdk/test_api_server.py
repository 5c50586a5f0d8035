"""Upstream's clients, unmodified, against the API server: in scripts of their own, as users write them."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("starlette")

from api_servers import ApiServer, experiment
from pages import blocks

TUNE = """
import json
import sys

import kubeflow.katib as katib


def objective(parameters):
    # Import required packages.
    import kubeflow.katib as katib

    # Calculate objective function.
    result = 4 * int(parameters["a"]) - float(parameters["b"]) ** 2
    print(f"result={result}")

    # Push metrics to Katib DB.
    katib.report_metrics({"result": result})


parameters = {"a": katib.search.int(min=10, max=20), "b": katib.search.double(min=0.1, max=0.2)}
name = "tune-experiment"
katib_client = katib.KatibClient(namespace="kubeflow")
katib_client.tune(
    name=name,
    objective=objective,
    parameters=parameters,
    objective_metric_name="result",
    max_trial_count=2,
    parallel_trial_count=1,
    resources_per_trial={"cpu": "2"},
    metrics_collector_config={"kind": "Push"},
)
katib_client.edit_experiment_budget(name, max_trial_count=3, parallel_trial_count=3)
katib_client.wait_for_experiment_condition(name=name, polling_interval=1)
best = katib_client.get_optimal_hyperparameters(name)
rows, logs = {}, {}
for trial in katib_client.list_trials(name):
    (row,) = katib_client.get_trial_metrics(trial.metadata.name, db_manager_address=sys.argv[1])
    rows[trial.metadata.name] = [row.metric.name, row.metric.value]
    logs[trial.metadata.name] = list(katib_client.get_job_logs(name, trial.metadata.name, follow=True))
details = katib_client.get_success_trial_details(name)
try:
    katib_client.edit_experiment_budget(name, max_trial_count=4)
except RuntimeError as error:
    refused = str(error.__context__.body)
suggestion = katib_client.get_suggestion(name)
katib_client.delete_experiment(name)
left = katib_client.list_experiments()
with open("told.json", "w") as file:
    json.dump(
        {
            "best": {one.name: one.value for one in best.parameter_assignments},
            "value": best.observation.metrics[0].latest,
            "rows": rows,
            "logs": logs,
            "details": len(details),
            "refused": refused,
            "suggestions": suggestion.status.suggestion_count,
            "left": len(left),
        },
        file,
    )
"""

FIT = """
    import json

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from katib_callbacks.lightning import KatibReportCallback

    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            return self.loss(batch)

        def validation_step(self, batch, _):
            loss = self.loss(batch)
            self.log("val_loss", loss)
            if not self.trainer.sanity_checking:
                losses.append(float(loss))

        def loss(self, batch):
            x, y = batch
            return torch.nn.functional.mse_loss(self.layer(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=float(lr))

    losses = []
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = DataLoader(TensorDataset(x, 2 * x), batch_size=8)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[KatibReportCallback("val_loss", report="history")],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(Regression(), loader, loader)
    with open("losses.json", "w") as file:
        json.dump(losses, file)
"""
"""The body of an objective that trains with ``lr``, and writes each epoch's loss into a file."""

PRINTED = """
    import json

    losses = [(float(lr) - target) ** 2 for target in (0.05, 0.06)]
    for loss in losses:
        print(f"val_loss={loss}")
    with open("losses.json", "w") as file:
        json.dump(losses, file)
"""

TRAIN = (
    """
import json

import kubeflow.katib as katib


def objective(parameters):
    lr = parameters["lr"]
"""
    + FIT
    + """

client = katib.KatibClient()
client.tune(
    name="train",
    objective=objective,
    parameters={"lr": katib.search.double(min=0.01, max=0.1)},
    objective_metric_name="val_loss",
    objective_type="minimize",
    max_trial_count=1,
    parallel_trial_count=1,
    retain_trials=True,
    metrics_collector_config={"kind": "Push"},
)
client.wait_for_experiment_condition("train", polling_interval=1)
best = client.get_optimal_hyperparameters("train")
with open("told.json", "w") as file:
    json.dump({"name": best.best_trial_name, "value": best.observation.metrics[0].latest}, file)
"""
)

WATCH = """
import json
import sys

from kubernetes import client, config, watch

config.load_kube_config()
custom, core, batch = client.CustomObjectsApi(), client.CoreV1Api(), client.BatchV1Api()
with open("experiment.json") as file:
    experiment = json.load(file)
where = ("kubeflow.org", "v1beta1", "default", "experiments")
begun = custom.list_namespaced_custom_object(*where)["metadata"]["resourceVersion"]
custom.create_namespaced_custom_object(*where, body=experiment)
seen = []
stream = watch.Watch()
for event in stream.stream(custom.list_namespaced_custom_object, *where, resource_version=begun):
    seen.append([event["type"], event["object"]["status"]["conditions"][-1]["type"]])
    if seen[-1][1] == "Succeeded":
        stream.stop()
pods = core.list_namespaced_pod("default", label_selector="katib.kubeflow.org/experiment=one").items
logs = [core.read_namespaced_pod_log(pod.metadata.name, "default") for pod in pods]
jobs = batch.list_namespaced_job("default").items
events = core.list_namespaced_event("default", field_selector="involvedObject.kind=Experiment").items
custom.delete_namespaced_custom_object(*where, name="one", body=client.V1DeleteOptions(propagation_policy="Foreground"))
with open("told.json", "w") as file:
    json.dump(
        {
            "seen": seen,
            "logs": logs,
            "phases": [pod.status.phase for pod in pods],
            "jobs": [job.status.succeeded for job in jobs],
            "reasons": [event.reason for event in events],
            "left": len(custom.list_namespaced_custom_object(*where)["items"]),
        },
        file,
    )
"""

OPTIMIZE = """
import json
import sys

import kubeflow.katib as katib
from kubeflow.optimizer import Objective, OptimizerClient, Search, TrialConfig
from kubeflow.trainer import CustomTrainer, TrainJobTemplate


def train(lr):BODY


client = OptimizerClient()
name = client.optimize(
    trial_template=TrainJobTemplate(trainer=CustomTrainer(func=train)),
    trial_config=TrialConfig(num_trials=2, parallel_trials=2),
    search_space={"lr": Search.uniform(0.01, 0.1)},
    objectives=[Objective(metric="val_loss")],
)
job = client.wait_for_job_status(name, polling_interval=1)
best = client.get_best_results(name)
rows, losses = {}, {}
for trial in job.trials:
    lr = trial.parameters["lr"]
    logs = katib.KatibClient().get_trial_metrics(trial.name, db_manager_address=sys.argv[1])
    rows[lr] = [[log.metric.name, log.metric.value] for log in logs]
    with open(f"home/{name}/{trial.name}/losses.json") as file:
        losses[lr] = json.load(file)
told = {
    "status": job.status,
    "trials": [trial.trainjob.status for trial in job.trials],
    "lr": best.parameters["lr"],
    "best": [best.metrics[0].name, best.metrics[0].latest, best.metrics[0].min],
    "rows": rows,
    "losses": losses,
    "logs": list(client.get_job_logs(name)),
}
client.delete_job(name)
with open("told.json", "w") as file:
    json.dump({**told, "left": len(client.list_jobs())}, file)
"""

TRAINER = """
import json

from kubeflow.trainer import CustomTrainer, TrainerClient


def train(factor):
    import os

    print(f"product={factor * 2} rank={os.environ['RANK']}")


def fail():
    raise ValueError("no data")


client = TrainerClient()
name = client.train(trainer=CustomTrainer(func=train, func_args={"factor": 21}))
failing = client.train(runtime="torch-distributed", trainer=CustomTrainer(func=fail))
begun = client.get_job(name)
client.wait_for_job_status(name, status={"Running", "Complete"}, polling_interval=1)
logs = list(client.get_job_logs(name, follow=True))
done = client.wait_for_job_status(name, polling_interval=1)
failed = client.wait_for_job_status(failing, status={"Failed"}, polling_interval=1)
told = {
    "runtimes": [one.name for one in client.list_runtimes()],
    "begun": begun.status,
    "done": done.status,
    "failed": failed.status,
    "steps": [[step.name, step.status] for step in done.steps],
    "logs": logs,
    "why": list(client.get_job_logs(failing)),
    "listed": sorted([job.name, job.status] for job in client.list_jobs()),
    "names": [name, failing],
}
client.delete_job(name)
client.delete_job(failing)
with open("told.json", "w") as file:
    json.dump({**told, "left": len(client.list_jobs())}, file)
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script against a server of its own, and returns what it has told."""
    with ApiServer(tmp_path / "home") as server:

        def run_script(text):
            (tmp_path / "script.py").write_text(text)
            environ = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
            command = [sys.executable, "script.py", server.db_manager]
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return json.loads((tmp_path / "told.json").read_text())

        yield run_script


def test_katibs_own_example_runs_as_it_is(run):
    told = run(TUNE)

    assert told["details"] == len(told["rows"]) == told["suggestions"] == 3
    value = 4 * int(told["best"]["a"]) - float(told["best"]["b"]) ** 2
    assert float(told["value"]) == value == max(float(value) for _, value in told["rows"].values())
    assert all(f"{name}={value}" in told["logs"][trial] for trial, (name, value) in told["rows"].items())
    assert "only one that has succeeded by reaching maxTrialCount, with resumePolicy" in told["refused"]
    assert told["left"] == 0


def test_the_code_of_the_page_runs_as_it_is(run):
    (block,) = (block for block in blocks("api-server.md") if block.mark == "tune")
    ask = "import json\nbest = client.get_optimal_hyperparameters('tune-experiment')\n"
    tell = "json.dump({one.name: one.value for one in best.parameter_assignments}, open('told.json', 'w'))\n"

    told = run(block.code.replace("max_trial_count=12", "max_trial_count=3") + ask + tell)

    assert 10 <= int(told["a"]) <= 20
    assert 0.1 <= float(told["b"]) <= 0.2


def test_our_callback_reports_in_an_experiment_of_katibs_client(run, tmp_path):
    told = run(TRAIN)

    losses = json.loads((tmp_path / "home" / "train" / told["name"] / "losses.json").read_text())
    assert float(told["value"]) == pytest.approx(losses[-1], rel=1e-6)


@pytest.mark.parametrize("body", [PRINTED, FIT], ids=["print", "callback"])
def test_kubeflows_optimizer_client_runs_as_it_is_and_has_the_numbers_that_were_computed(run, body):
    told = run(OPTIMIZE.replace("BODY", body))

    assert (told["status"], told["trials"], told["left"]) == ("Complete", ["Complete"] * 2, 0)
    for lr, losses in told["losses"].items():
        assert [name for name, _ in told["rows"][lr]] == ["val_loss"] * 2
        assert [float(value) for _, value in told["rows"][lr]] == pytest.approx(losses, rel=1e-6)
    best = min(told["losses"], key=lambda lr: min(told["losses"][lr]))
    name, latest, least = told["best"]
    assert (told["lr"], name) == (best, "val_loss")
    assert [float(latest), float(least)] == pytest.approx(
        [told["losses"][best][-1], min(told["losses"][best])], rel=1e-6
    )
    assert any(latest in line for line in told["logs"])


def test_kubeflows_trainer_client_runs_as_it_is(run):
    told = run(TRAINER)

    assert told["runtimes"] == ["torch-distributed"]
    assert told["begun"] in {"Created", "Running", "Complete"}
    assert (told["done"], told["failed"], told["left"]) == ("Complete", "Failed", 0)
    assert told["steps"] == [["node-0", "Succeeded"]]
    assert "product=42 rank=0" in told["logs"]
    assert any("ValueError: no data" in line for line in told["why"])
    name, failing = told["names"]
    assert told["listed"] == sorted([[name, "Complete"], [failing, "Failed"]])


def test_kubernetes_own_client_creates_watches_reads_and_deletes(run, tmp_path):
    (tmp_path / "experiment.json").write_text(json.dumps(experiment(maxTrialCount=2)))
    told = run(WATCH)

    assert told["seen"][0] == ["ADDED", "Created"]
    assert told["seen"][-1] == ["MODIFIED", "Succeeded"]
    assert told["phases"] == ["Succeeded"] * 2
    assert all(log.startswith("loss=") for log in told["logs"])
    assert told["jobs"] == [1, 1]
    assert sorted(told["reasons"]) == ["ExperimentCreated", "ExperimentMaxTrialsReached", "ExperimentRunning"]
    assert told["left"] == 0
