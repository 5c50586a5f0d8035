"""Keras: processes that know of each other through JAX, or only through their launcher."""

import json

import pytest


def tf_config(kind, index, **cluster):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.fixture
def job(free_port):
    """What a TrainJob tells its JAX processes, besides which one each is."""
    return {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port}", "JAX_NUM_PROCESSES": "2", "KERAS_BACKEND": "jax"}


def test_two_jax_processes(trial, job):
    for rank in ("0", "1"):
        options = ("--rank-from", "JAX_PROCESS_ID", "--join-jax")
        trial.start("keras_trial.py", *options, name=f"jax-{rank}", JAX_PROCESS_ID=rank, **job)
    trial.wait()

    assert trial.rows() == [("score", 1.25)]
    trial.assert_rank_zero_alone_reported(has_own_grpc=True)


def test_the_example(trial, job):
    processes = [
        trial.start("keras_jax_multiprocess.py", "--epochs", "2", name=f"jax-{rank}", JAX_PROCESS_ID=str(rank), **job)
        for rank in (0, 1)
    ]
    trial.wait()

    rows = trial.rows()
    assert [name for name, _ in rows] == ["accuracy", "loss"]
    assert 0.3 < rows[0][1] <= 1
    assert "delivered=2" in processes[0].output()
    assert "receipt: None" in processes[1].output()


def test_keras_on_torch_under_torchrun(trial):
    trial.torchrun("keras_trial.py", "--rank-from", "RANK", KERAS_BACKEND="torch")
    trial.wait()

    assert trial.rows() == [("score", 1.25)]
    trial.assert_rank_zero_alone_reported()
    silent = ["INFO: This process is rank 1 (RANK=1), not rank zero: it reports nothing."]
    assert trial.testimonies()[1]["said"] == silent


def test_processes_that_mpirun_starts_and_jax_does_not_join(trial, mpirun):
    # Both are process 0 to JAX; OpenMPI alone tells them apart, and sets no RANK.
    trial.execute(
        *(*mpirun, trial.python, "keras_trial.py", "--rank-from", "OMPI_COMM_WORLD_RANK"),
        name="mpirun",
        KERAS_BACKEND="jax",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    )
    trial.wait()

    assert trial.rows() == [("score", 1.25)]
    trial.assert_rank_zero_alone_reported()
    silent = ["INFO: This process is rank 1 (OMPI_COMM_WORLD_RANK=1), not rank zero: it reports nothing."]
    assert trial.testimonies()[1]["said"] == silent


@pytest.mark.parametrize(("first", "backend"), [("worker", "tensorflow"), ("chief", "jax")])
def test_the_workers_of_a_tfjob_that_each_fit_on_their_own(trial, first, backend):
    # Beside a chief, worker 0 is the second of them. TF_CONFIG counts on any backend.
    if first == "chief":
        tasks, cluster = [("chief", 0), ("worker", 0)], {"chief": ["a:1"], "worker": ["b:1"]}
    else:
        tasks, cluster = [("worker", 0), ("worker", 1)], {"worker": ["a:1", "b:1"]}
    for rank, (kind, index) in enumerate(tasks):
        environ = {"TF_CONFIG": tf_config(kind, index, **cluster), "KERAS_BACKEND": backend}
        trial.start("keras_trial.py", "--rank", rank, name=f"task-{rank}", **environ)
    trial.wait()

    assert trial.rows() == [("score", 1.25)]
    trial.assert_rank_zero_alone_reported()
    silent = f"INFO: This process is rank 1 (TF_CONFIG={tasks[1][0]} {tasks[1][1]}), not rank zero: it reports nothing."
    assert trial.testimonies()[1]["said"] == [silent]


def test_keras_3_cannot_fit_under_multi_worker_mirrored_strategy(trial, free_port):
    # If this fails because the fit went well, say so in docs/distributed.md, and assert on rows here.
    workers = [f"127.0.0.1:{free_port}", f"127.0.0.1:{int(free_port) + 1}"]
    for rank in (0, 1):
        environ = {"TF_CONFIG": tf_config("worker", rank, worker=workers), "KERAS_BACKEND": "tensorflow"}
        trial.start("multi_worker.py", name=f"worker-{rank}", **environ)
    trial.wait()

    told = trial.testimonies()
    assert [told[rank]["replicas"] for rank in (0, 1)] == [2, 2]
    for rank in (0, 1):
        assert "PerReplica" in told[rank]["error"]
    assert trial.rows() == []
    assert trial.door.visitors == []
