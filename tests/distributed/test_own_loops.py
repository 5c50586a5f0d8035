"""Loops by hand whose ranks no torch process group shows, and single processes that a variable makes a rank."""

import pytest

HOROVOD = {  # of `horovodrun --gloo`, which hands on the RANK of the pod that it was called in
    "RANK": "0",
    "HOROVOD_SIZE": "2",
    "HOROVOD_LOCAL_SIZE": "2",
    "HOROVOD_CROSS_RANK": "0",
    "HOROVOD_CROSS_SIZE": "1",
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_CPU_OPERATIONS": "gloo",
}


@pytest.mark.parametrize("by", ["jax", "jax-that-is-shut-down"])
def test_processes_that_jax_joined(trial, free_port, by):
    # Nothing in the environment tells them apart.
    for rank in (0, 1):
        address = f"127.0.0.1:{free_port}"
        trial.start("own_loop.py", "--by", by, "--rank", rank, name=f"jax-{rank}", COORDINATOR=address)
    trial.wait()

    assert trial.rows() == [("score", 0.25)]
    trial.assert_rank_zero_alone_reported(has_own_grpc=True)
    said = ["INFO: This process is rank 1 (jax.distributed=1), not rank zero: it reports nothing."]
    assert trial.testimonies()[1]["said"] == said


@pytest.mark.parametrize("by", ["spawn", "spawn-alone"])
def test_children_of_spawn_without_a_process_group(trial, free_port, by):
    # The first has left its group; the second never had one. Both inherit the RANK of their pod.
    trial.start("own_loop.py", "--by", by, name="spawn", RANK="0", COORDINATOR=f"127.0.0.1:{free_port}")
    trial.wait()

    assert trial.rows() == [("score", 0.25)]
    trial.assert_rank_zero_alone_reported()
    said = ["INFO: This process is rank 1 (torch.multiprocessing.spawn=1), not rank zero: it reports nothing."]
    assert trial.testimonies()[1]["said"] == said


@pytest.mark.parametrize(
    ("variable", "others"),
    [
        ("HOROVOD_RANK", HOROVOD),
        ("MV2_COMM_WORLD_RANK", {"MV2_COMM_WORLD_SIZE": "2"}),
        ("PADDLE_TRAINER_ID", {"PADDLE_TRAINERS_NUM": "2"}),
        ("KATIB_CALLBACKS_RANK", {"SLURM_PROCID": "0"}),
        (
            "JOB_COMPLETION_INDEX",
            {"KUBEFLOW_TRAINER_SERVER_URL": "https://localhost:1/status"},
        ),
    ],
)
def test_processes_that_a_launcher_numbers(trial, variable, others):
    for rank in (0, 1):
        command = ("own_loop.py", "--by", "launcher", "--rank", rank)
        trial.start(*command, name=f"process-{rank}", **others, **{variable: str(rank)})
    trial.wait()

    assert trial.rows() == [("score", 0.25)]
    trial.assert_rank_zero_alone_reported()
    said = [f"INFO: This process is rank 1 ({variable}=1), not rank zero: it reports nothing."]
    assert trial.testimonies()[1]["said"] == said


def test_the_pods_of_an_indexed_job_each_report_unless_the_template_says_otherwise(trial):
    for rank in (0, 1):
        command = ("own_loop.py", "--by", "launcher", "--rank", rank)
        trial.start(*command, name=f"pod-{rank}", JOB_COMPLETION_INDEX=str(rank))
    trial.wait()

    assert sorted(trial.rows()) == [("score", 0.25), ("score", 0.75)]


LEFT_OVER = [("SLURM_PROCID", "3", {}), ("OMPI_COMM_WORLD_RANK", "1", {"OMPI_COMM_WORLD_SIZE": "1"})]


@pytest.mark.parametrize(("variable", "rank", "others"), LEFT_OVER)
def test_a_single_process_that_a_variable_silences_says_so_on_stderr(trial, variable, rank, others):
    # No log handler is configured: this is what a user sees.
    process = trial.start("plain_loop.py", "--epochs", "1", name="single", **others, **{variable: rank})
    trial.wait()

    assert trial.rows() == []
    [line] = [line for line in process.output().splitlines() if "rank" in line and "receipt" not in line]
    assert line == (
        f"This process is rank {rank} ({variable}={rank}), not rank zero: it reports nothing. Only {variable} says so, "
        "and no variable says that there are other processes. If this is the only one, unset "
        f"{variable} or set KATIB_CALLBACKS_RANK=0."
    )


@pytest.mark.parametrize(("variable", "rank", "others"), LEFT_OVER)
def test_a_single_process_with_a_left_over_variable_reports_if_it_is_told_its_rank(trial, variable, rank, others):
    environ = {**others, variable: rank, "KATIB_CALLBACKS_RANK": "0"}
    trial.start("plain_loop.py", "--epochs", "1", name="single", **environ)
    trial.wait()

    assert [name for name, _ in trial.rows()] == ["accuracy", "loss"]


def test_a_callback_that_a_variable_silences_warns_too(trial):
    # Keras has no word of its own on it.
    trial.start("keras_trial.py", "--rank", "0", name="single", SLURM_PROCID="3", KERAS_BACKEND="torch")
    trial.wait()

    assert trial.rows() == []
    [said] = trial.testimonies()[0]["said"]
    assert said.startswith("WARNING: This process is rank 3 (SLURM_PROCID=3), not rank zero: it reports nothing. Only")


def test_a_rank_of_ones_own_does_not_overrule_a_process_group(trial):
    # Both processes inherit it.
    trial.torchrun("torch_loop.py", KATIB_CALLBACKS_RANK="0")
    trial.wait()

    assert [name for name, _ in trial.rows()] == ["weight", "again"]
    trial.assert_rank_zero_alone_reported()
