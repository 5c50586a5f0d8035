"""From a template to processes: references, ranks, Kubernetes' variables, deadlines."""

import json
from pathlib import Path

import pytest

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.manifest import read_file
from katib_callbacks.local.trials.template import TrialTemplate

EXAMPLES = Path(__file__).parents[2] / "examples" / "experiments"


def template_of(example):
    manifest = read_file(EXAMPLES / f"{example}.yaml").serialize()
    manifest["metadata"]["namespace"] = "ns"
    return TrialTemplate.of(manifest)


def planned(example, **assignments):
    return template_of(example).plan("e-1", assignments, free_port=lambda: 4321)


def test_a_trials_own_values_are_put_in():
    (process,) = planned("trial-metadata", lr="0.5").processes

    assert process.command[-2:] == ("--lr=0.5", "--push")
    assert process.environ == {
        "TRIAL_NAME": "e-1",
        "TRIAL_PLACE": "ns/Job/batch/v1",
        "TRIAL_TEAM": "vision",
        "TRIAL_NOTE": "first try",
    }


def test_variables_are_expanded_as_kubernetes_does():
    template = template_of("environment")
    container = template.trial_spec["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["$$(LEARNING_RATE)", "$(NOWHERE)"]
    (process,) = template.plan("e-1", {"lr": "0.25"}, free_port=lambda: 4321).processes

    assert process.environ == {"LEARNING_RATE": "0.25", "POD": "e-1"}
    assert "--lr=0.25" in process.command
    assert process.command[-2:] == ("$(LEARNING_RATE)", "$(NOWHERE)"), "$$ escapes, and what is not known stays"


def ranks(process):
    return tuple(
        process.environ.get(name) for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "PET_NODE_RANK")
    )


def test_a_pytorchjob_has_a_process_for_each_replica():
    processes = planned("pytorchjob", lr="0.1", momentum="0.2").processes

    assert [ranks(process) for process in processes] == [
        ("0", "0", "0", "3", "0"),
        ("1", "0", "1", "3", "1"),
        ("2", "0", "2", "3", "2"),
    ]
    assert {process.environ["MASTER_PORT"] for process in processes} == {"4321"}


def test_a_trainjob_has_processes_on_each_node():
    processes = planned("trainjob", lr="0.1").processes

    assert [ranks(process) for process in processes] == [
        ("0", "0", "0", "4", "0"),
        ("1", "1", "0", "4", "0"),
        ("2", "0", "1", "4", "1"),
        ("3", "1", "1", "4", "1"),
    ]


def test_each_task_of_a_tfjob_knows_the_cluster_and_its_place():
    ports = iter(range(4000, 4010))
    template = template_of("tfjob")
    replicas = template.trial_spec["spec"]["tfReplicaSpecs"]
    replicas["PS"] = replicas["Evaluator"] = {**replicas["Worker"], "replicas": 1}
    processes = template.plan("e-1", {}, free_port=lambda: next(ports)).processes

    configs = [json.loads(process.environ["TF_CONFIG"]) for process in processes]
    assert [(config["task"]["type"], config["task"]["index"]) for config in configs] == [
        ("chief", 0),
        ("worker", 0),
        ("worker", 1),
        ("ps", 0),
        ("evaluator", 0),
    ]
    assert {json.dumps(config["cluster"]) for config in configs} == {
        json.dumps(
            {
                "chief": ["127.0.0.1:4000"],
                "worker": ["127.0.0.1:4001", "127.0.0.1:4002"],
                "ps": ["127.0.0.1:4003"],
            }
        )
    }
    assert [process.is_server for process in processes] == [False, False, False, True, False]


def test_a_tfjob_of_one_task_is_told_nothing():
    template = template_of("tfjob")
    del template.trial_spec["spec"]["tfReplicaSpecs"]["Worker"]

    assert "TF_CONFIG" not in template.plan("e-1", {}, free_port=lambda: 4321).processes[0].environ


def test_a_tfjob_of_servers_alone_is_refused():
    template = template_of("tfjob")
    replicas = template.trial_spec["spec"]["tfReplicaSpecs"]
    template.trial_spec["spec"]["tfReplicaSpecs"] = {"PS": replicas["Worker"]}

    with pytest.raises(ConfigurationError, match=r"tfReplicaSpecs: must have a Chief or a Master or a Worker"):
        template.plan("e-1", {}, free_port=lambda: 4321)


def test_of_an_mpijob_the_launcher_runs():
    (process,) = planned("mpijob", lr="0.1", momentum="0.2").processes

    assert process.command[:3] == ("mpirun", "-np", "2")


@pytest.mark.parametrize(
    ("command", "own"),
    [
        (["torchrun", "--nproc-per-node=2", "train.py"], ["torchrun", "--nproc-per-node=2", "train.py"]),
        (["torchrun", "--master-port", "29500", "train.py"], ["torchrun", "--master-port", "41234", "train.py"]),
        (["torchrun", "--master_port=29500", "t.py", "29500"], ["torchrun", "--master_port=41234", "t.py", "29500"]),
        (
            ["sh", "-c", "torchrun --rdzv-backend c10d --rdzv-endpoint=localhost:29400 t.py"],
            ["sh", "-c", "torchrun --rdzv-backend c10d --rdzv-endpoint=localhost:41234 t.py"],
        ),
    ],
)
def test_torchrun_in_a_job_has_a_port_of_the_trials_own(command, own):
    template = template_of("deadline")
    template.trial_spec["spec"]["template"]["spec"]["containers"][0]["command"] = command
    (process,) = template.plan("t", {}, free_port=lambda: 41234).processes

    assert process.environ["PET_MASTER_PORT"] == "41234"
    assert list(process.command) == own


@pytest.mark.parametrize("command", [["torchrun", "train.py"], ["bash", "-c", "python -m torch.distributed.run t.py"]])
def test_torchrun_makes_the_ranks_itself(command):
    template = template_of("trainjob")
    template.trial_spec["spec"]["trainer"]["command"] = command
    processes = template.plan("e-1", {}, free_port=lambda: 4321).processes

    assert [ranks(process) for process in processes] == [(None, None, None, None, "0"), (None, None, None, None, "1")]
    assert {process.environ["PET_NPROC_PER_NODE"] for process in processes} == {"2"}


@pytest.mark.parametrize(
    ("example", "deadline"), [("deadline", 300), ("pytorchjob-processes", 600), ("random-push", None)]
)
def test_the_deadline_is_the_jobs(example, deadline):
    assert planned(example, lr="1", momentum="1").deadline_s == deadline
