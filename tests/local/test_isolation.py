"""A trial is as alone as a pod: its folder, its environment, its GPUs; and the user's folder stays as it was."""

import os
import secrets
import sys
from importlib.util import find_spec

import pytest
from homes import REPORT, SUBMITTED, experiment, quoted

from katib_callbacks.local.running.runner import Runner
from katib_callbacks.local.trials.gpus import GPUs, visible_gpus

STDOUT = {"collector": {"kind": "StdOut"}}


def container_of(one):
    return one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]


def run(local, *command, count=2, env=(), pod=None, container=None, **options):
    one = experiment(maxTrialCount=count, metricsCollectorSpec=STDOUT, parallelTrialCount=min(2, count))
    own = container_of(one)
    own["command"] = list(command) if command[1] == "-c" and "sh" in command[0] else quoted(command)
    own["env"] += list(env)
    own.update(container or {})
    one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"].update(pod or {})
    done = local.run(one, **options)
    trials = local.trials()
    assert [trial.state for trial in trials] == ["Succeeded"] * count, [trial.conditions[-1] for trial in trials]
    return done, trials


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def output(local, trial):
    return list(local.queries.get_job_logs("one", trial.name))


def test_each_trial_works_in_a_folder_of_its_own_that_is_kept(local):
    code = (
        "import os, time; open('model', 'a').write(os.environ['X']); time.sleep(0.3)\n"
        "print('loss=' + open('model').read())"
    )
    _, trials = run(local, sys.executable, "-c", code, count=4)

    for trial in trials:
        assert trial.value == float(trial.assignments["x"])
        assert (local.home / "one" / trial.name / "model").read_text() == trial.assignments["x"]
    assert list(local.folder.iterdir()) == []


def test_files_that_a_command_names_are_found_where_the_experiment_was_started(local):
    (local.folder / "src").mkdir()
    (local.folder / "src" / "train.py").write_text(
        "import os, sys, helper, beside\n"
        "from pathlib import Path\n"
        "print('loss=' + Path(sys.argv[1].partition('=')[2]).read_text() + Path(sys.argv[3]).read_text())\n"
        "print('data', Path(os.environ['KATIB_CALLBACKS_SUBMIT_DIR'], 'data').is_dir(), *sys.argv[4:])\n"
    )
    (local.folder / "src" / "beside.py").touch()
    (local.folder / "helper.py").touch()
    (local.folder / "data").mkdir()
    (local.folder / "data" / "a.txt").write_text("0.2")
    (local.folder / "b.txt").write_text("5")
    before = snapshot(local.folder)
    _, trials = run(
        local, sys.executable, "src/train.py", "--data=data/a.txt", "--more", "b.txt", "data", "--data-dir", "data",
        "--output", "b.txt",
    )  # fmt: skip

    data = str(local.folder / "data")
    for trial in trials:
        assert output(local, trial) == ["loss=0.25", f"data True data --data-dir {data} --output b.txt"]
    assert snapshot(local.folder) == before


def test_a_script_that_a_shell_runs_is_found_and_one_that_it_writes_is_its_own(local):
    (local.folder / "mine.py").write_text("print('loss=1')")
    (local.folder / "train.py").write_text("print('the user's own')")
    before = snapshot(local.folder)
    script = 'printf \'print("loss=2")\' > "train.py"; python mine.py; python "train.py"'
    _, trials = run(local, "sh", "-c", script)

    assert output(local, trials[0]) == ["loss=1", "loss=2"]
    assert snapshot(local.folder) == before


def test_what_a_trial_may_as_well_write_is_a_copy_of_its_own(local):
    (local.folder / "model.pt").write_text("0.5")
    (local.folder / "out").mkdir()
    (local.folder / "out" / "a.txt").write_text("0.25")
    (local.folder / "results.csv").write_text("mine")
    before = snapshot(local.folder)
    (local.folder / "train.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "model, results, folder = map(Path, (sys.argv[2], sys.argv[3], sys.argv[4].partition('=')[2]))\n"
        "print('loss=' + model.read_text())\n"
        "print((folder / 'a.txt').read_text())\n"
        "for path in (model, results, folder / 'a.txt', folder / 'new.txt'):\n"
        "    path.write_text('overwritten')\n"
    )
    words = ("train.py", "--model", "model.pt", "./results.csv", "--model_dir=out")
    _, trials = run(local, sys.executable, *words)
    assert [output(local, trial) for trial in trials] == [["loss=0.5", "0.25"]] * 2
    local.folder.joinpath("train.py").unlink()
    assert snapshot(local.folder) == before


def test_what_is_too_large_to_be_copied_is_used_where_it_lies(local, monkeypatch, caplog):
    monkeypatch.setattr("katib_callbacks.local.trials.isolation.MAX_COPY_BYTES", 10_000)
    (local.folder / "model.pt").write_text("0.5".ljust(10_001))
    _, trials = run(local, sys.executable, "-c", "import sys; print(sys.argv[1]); print('loss=1')", "model.pt", count=2)

    assert output(local, trials[0])[0] == str(local.folder / "model.pt")
    assert caplog.text.count("is too large to be copied for each trial") == 1


def test_what_cannot_be_copied_is_used_where_it_lies(local):
    (local.folder / "pipes").mkdir()
    os.mkfifo(local.folder / "pipes" / "one")
    _, trials = run(local, sys.executable, "-c", "import sys; print(sys.argv[1]); print('loss=1')", "./pipes", count=1)

    assert output(local, trials[0])[0] == str(local.folder / "pipes")


def test_a_word_that_is_as_likely_a_value_stays_as_it_is(local):
    (local.folder / "resnet").mkdir()
    (local.folder / "resnet" / "a").touch()
    _, trials = run(local, sys.executable, "-c", "import os; print(os.listdir()); print('loss=1')", "--model", "resnet")

    assert output(local, trials[0])[0] == "[]"


def test_paths_with_blanks_and_letters_of_all_languages(local, tmp_path):
    local.folder = tmp_path / "my wörk $x"
    local.folder.mkdir()
    (local.folder / "übung.py").write_text("import sys; print('loss=' + open(sys.argv[2]).read())")
    (local.folder / "daten.csv").write_text("0.5")
    _, trials = run(local, "sh", "-c", "python übung.py --data daten.csv")
    assert output(local, trials[0]) == ["loss=0.5"]
    done = local.run(
        one := experiment("pass", "two", metricsCollectorSpec=STDOUT, maxTrialCount=1, parallelTrialCount=1)
    )
    assert done.status.trial_metrics_unavailable == 1
    one["metadata"]["name"] = "three"
    container_of(one)["command"] = ["python", "übung.py", "--data", "daten.csv"]
    assert local.run(one).status.trials_succeeded == 1


def test_a_trial_of_a_notebook_is_no_part_of_what_runs_there(local, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    code = "import os; print('loss=1'); print({'MPLBACKEND', 'WANDB_RUN_ID', 'PL_GLOBAL_SEED'} & set(os.environ))"
    _, trials = run(local, sys.executable, "-c", code)

    assert output(local, trials[0]) == ["loss=1", "set()"]


def test_a_missing_file_that_lies_in_the_users_folder_is_explained(local):
    (local.folder / "data.csv").touch()
    local.run(experiment("open('data.csv')", maxTrialCount=1, parallelTrialCount=1))

    message = local.trials()[0].conditions[-1]["message"]
    assert f"data.csv lies in {local.folder}" in message
    assert "$KATIB_CALLBACKS_SUBMIT_DIR" in message
    assert "--workdir" in message


def test_volumes_and_the_working_dir_are_a_trials_own_or_the_users(local):
    shared = local.folder / "shared"
    shared.mkdir()
    code = "import os, sys; open(sys.argv[1], 'a').write('x'); print(os.getcwd(), os.environ['CACHE'], 'loss=1')"
    _, trials = run(
        local,
        sys.executable, "-c", code, "/out/result",
        env=[{"name": "CACHE", "value": "/cache/a:/cache-not"}],
        container={
            "workingDir": "/opt/app",
            "volumeMounts": [{"name": "scratch", "mountPath": "/out"}, {"name": "users", "mountPath": "/cache"}],
        },
        pod={"volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "users", "hostPath": {"path": str(shared)}}]},
    )  # fmt: skip

    for trial in trials:
        folder = local.home / "one" / trial.name
        assert (folder / "volumes" / "scratch" / "result").read_text() == "x"
        assert output(local, trial) == [f"{folder / 'opt' / 'app'} {shared}/a:/cache-not loss=1"]


ENVIRONMENT = """
import json, os
print(json.dumps(sorted(os.environ)))
shown = ("MINE", "PYTHONUNBUFFERED", "OMP_NUM_THREADS", "HTTPS_PROXY")
print(json.dumps({name: os.environ.get(name) for name in shown}))
print("loss=1")
"""


def test_the_shells_variables_for_other_purposes_do_not_reach_a_trial(local, monkeypatch):
    foreign = [
        "KATIB_CALLBACKS_TLS_CA", "KATIB_CALLBACKS_SINKS", "KUBEFLOW_TRAINER_SERVER_URL", "KATIB_FOO", "SLURM_JOB_ID",
        "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "TF_CONFIG",
        "PET_NNODES",
    ]  # fmt: skip
    for name in foreign:
        monkeypatch.setenv(name, "/no/such/thing")
    monkeypatch.setenv("MINE", "kept")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    _, trials = run(local, sys.executable, "-c", ENVIRONMENT, container={"resources": {"requests": {"cpu": "1500m"}}})

    names, values, _ = output(local, trials[0])
    assert not [name for name in foreign if f'"{name}"' in names]
    assert '"PATH"' in names
    assert '"HOME"' in names
    assert (
        values
        == '{"MINE": "kept", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2", "HTTPS_PROXY": "http://127.0.0.1:9"}'
    )


def test_the_template_has_the_last_word_on_threads(local):
    _, trials = run(
        local, sys.executable, "-c", ENVIRONMENT, container={"resources": {"limits": {"cpu": 4}}},
        env=[{"name": "OMP_NUM_THREADS", "value": "3"}, {"name": "PYTHONUNBUFFERED", "value": ""}],
    )  # fmt: skip

    assert '"PYTHONUNBUFFERED": "", "OMP_NUM_THREADS": "3"' in output(local, trials[0])[1]


def test_a_push_trial_delivers_though_the_shell_is_set_up_for_a_cluster(local, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_TLS_CA", "/no/such/ca.pem")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "katib.example:6790")
    done = local.run(experiment(REPORT + "report({'loss': 1})"))

    assert done.status.trials_succeeded == 3


def test_a_module_of_the_users_does_not_break_the_db_manager(local, monkeypatch):
    (local.folder / "queue.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.chdir(local.folder)
    _, trials = run(local, "sh", "-c", "echo loss=1")

    assert trials[0].value == 1


SHOW_GPUS = "import os, time; time.sleep(0.5); print('gpus', os.environ.get('CUDA_VISIBLE_DEVICES')); print('loss=1')"


def shown_gpus(local, trials):
    return [output(local, trial)[0].removeprefix("gpus ") for trial in trials]


def test_gpus_are_shared_out_among_trials_that_run_at_a_time(local, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    limits = {"resources": {"limits": {"nvidia.com/gpu": 2}}}
    _, trials = run(local, sys.executable, "-c", SHOW_GPUS, count=4, container=limits)

    assert set(shown_gpus(local, trials)) == {"0,1", "2,3"}


def test_trials_wait_for_gpus(local, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    running, most = set(), []

    def watch(event):
        if event.trial is not None:
            (running.add if event.trial.state == "Running" else running.discard)(event.trial.name)
            most.append(len(running))

    one = experiment(SHOW_GPUS, metricsCollectorSpec=STDOUT)
    local.run(one, watch, gpus_per_trial=1)

    assert max(most) == 1
    assert shown_gpus(local, local.trials()) == ["GPU-a"] * 3


def test_trials_that_share_a_gpu_are_said(local, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    _, trials = run(local, sys.executable, "-c", SHOW_GPUS)

    assert shown_gpus(local, trials) == ["0,1"] * 2
    assert "its trials ask for no GPU, so that all 2 at a time use the same" in caplog.text


def test_a_parameter_may_be_the_number_of_nodes_that_have_gpus(local, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    one = experiment(metricsCollectorSpec=STDOUT, maxTrialCount=1, parallelTrialCount=1)
    template = one["spec"]["trialTemplate"]
    trainer = {
        "command": ["sh", "-c", "sleep 0.5; echo gpus $CUDA_VISIBLE_DEVICES; echo loss=1"],
        "numNodes": "${trialParameters.x}",
        "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}},
    }
    template["primaryContainerName"] = "node"
    template["trialSpec"] = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "spec": {"trainer": trainer},
    }
    one["spec"]["parameters"][0] = {"name": "x", "parameterType": "int", "feasibleSpace": {"min": "2", "max": "2"}}
    local.run(one)

    (trial,) = local.trials()
    assert trial.state == "Succeeded", trial.conditions[-1]
    assert shown_gpus(local, [trial]) == ["0"]


def test_a_trial_whose_parameters_make_no_command_fails_alone(local):
    one = experiment("print('loss=1')", metricsCollectorSpec=STDOUT, maxTrialCount=2, parallelTrialCount=1)
    container_of(one)["resources"] = {"limits": {"cpu": "${trialParameters.x}"}}
    one["spec"]["parameters"][0] = {
        "name": "x", "parameterType": "categorical", "feasibleSpace": {"list": ["2", "two"]},
    }  # fmt: skip
    one["spec"]["algorithm"] = {"algorithmName": "grid"}
    local.run(one)

    assert [trial.state for trial in local.trials()] == ["Succeeded", "Failed"]
    assert "'two' is not a number of processors" in local.trials()[1].conditions[-1]["message"]


def test_gpus_that_are_not_there_are_said(local, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    limits = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    _, trials = run(local, sys.executable, "-c", SHOW_GPUS, container=limits)

    assert shown_gpus(local, trials) == ["", ""]
    assert "experiment one: a trial asks for 2 GPUs; here it has 0" in caplog.text


NVIDIA_SMI = """#!/bin/sh
[ "$*" = --list-gpus ] || exit 1
cat <<'END'
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-6c89852c/1/0)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-7c89852c-d268-c3f3-1b07-005d5ae1dc3f)
END
"""


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        (None, ["0", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-GPU-6c89852c/1/0", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("3, 1", ["3", "1"]),
        ("1,-1,2", ["1"]),
        ("GPU-6c89852c,MIG-GPU-6c89852c/1/0", ["GPU-6c89852c", "MIG-GPU-6c89852c/1/0"]),
    ],
)
def test_the_gpus_are_the_machines_or_those_that_the_user_has_chosen(tmp_path, monkeypatch, given, devices):
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("katib_callbacks.local.trials.gpus._NUMBERED", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    assert visible_gpus() == devices


def test_a_machine_without_gpus_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr("katib_callbacks.local.trials.gpus._NUMBERED", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    assert visible_gpus() == []


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_numbers_that_the_user_has_chosen_keep_their_order(local, monkeypatch, order):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "10,2")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    code = f"{SHOW_GPUS}; print(os.environ.get('CUDA_DEVICE_ORDER'))"
    _, trials = run(local, sys.executable, "-c", code, gpus_per_trial=2)

    assert [output(local, trial)[::2] for trial in trials] == [["gpus 10,2", str(order)]] * 2


def test_two_experiments_at_a_time_share_out_the_gpus(local, monkeypatch):
    devices = {f"GPU-{secrets.token_hex(4)}" for _ in range(2)}  # no other test's
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(devices))
    code = (
        f"{SUBMITTED}device = submitted / os.environ['CUDA_VISIBLE_DEVICES']\n"
        "device.mkdir()\ntime.sleep(0.2)\ndevice.rmdir()\nprint('loss=1')"
    )
    names = ("one", "two")
    runners = [
        Runner(local.home, local.store(experiment(code, name, metricsCollectorSpec=STDOUT), gpus_per_trial=1))
        for name in names
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()

    assert [trial.state for name in names for trial in local.trials(name)] == ["Succeeded"] * 6


def test_gpus_come_back_and_a_trial_that_wants_more_than_there_are_gets_all():
    gpus = GPUs(["0", "1"])

    first = gpus.take([3])
    assert first == [["0", "1"]]
    assert gpus.take([1]) is None
    gpus.give_back(first)
    assert gpus.take([1, 1]) == [["0"], ["1"]]
    gpus.close()
    assert GPUs([]).take([1]) == [[]]


# What OptimizerClient of the kubeflow SDK makes of a function: its source, under the name of the file it comes from.
OPTIMIZER_CLIENT = """
read -r -d '' SCRIPT << EOM

def train(x):
    import time
    time.sleep(0.3)
    print("loss=" + str(x))

train("${trialParameters.x}")
EOM
printf "%s" "$SCRIPT" > "script.py"
python "script.py"
"""


def test_experiments_of_the_sdk_run_each_trials_own_code_and_leave_the_users_script(local):
    (local.folder / "script.py").write_text("print('loss=-1')")
    before = snapshot(local.folder)
    one = experiment(metricsCollectorSpec=STDOUT, maxTrialCount=12, parallelTrialCount=4)
    container_of(one)["command"] = ["bash", "-c"]
    container_of(one)["args"] = [OPTIMIZER_CLIENT]
    del container_of(one)["env"]
    local.run(one)

    assert len(local.trials()) == 12
    for trial in local.trials():
        assert trial.value == float(trial.assignments["x"])
    assert snapshot(local.folder) == before


TRANSFORMERS = """
import os, torch
from transformers import Trainer, TrainingArguments
from katib_callbacks.transformers import KatibReportCallback

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(os.environ["X"])))
    def forward(self, x, labels=None):
        return {"loss": (self.weight - self.weight.detach()).abs() + float(os.environ["X"]), "logits": x * self.weight}

data = [{"x": torch.zeros(1), "labels": torch.zeros(1)}] * 4
arguments = TrainingArguments(
    num_train_epochs=3, report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
    eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, learning_rate=0.0,
)
model = Model()
trainer = Trainer(
    model=model, args=arguments, train_dataset=data, eval_dataset=data,
    compute_metrics=lambda _: {"weight": float(model.weight)}, callbacks=[KatibReportCallback({"loss": "eval_weight"})],
)
trainer.train()
print("trained", float(model.weight))
"""


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_eight_parallel_transformers_trials_with_default_folders_report_their_own_numbers(local):
    one = experiment(TRANSFORMERS, maxTrialCount=8, parallelTrialCount=8)
    container_of(one)["env"].append({"name": "OMP_NUM_THREADS", "value": "1"})
    local.run(one)

    for trial in local.trials():
        assert trial.state == "Succeeded", trial.conditions[-1]
        assert trial.value == pytest.approx(float(trial.assignments["x"]), rel=1e-6)
        assert any((local.home / "one" / trial.name).rglob("checkpoint-*")), "the default folder, in the trial's own"
    assert list(local.folder.iterdir()) == []
