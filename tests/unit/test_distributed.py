"""Who is rank zero: one row for each launcher, and for each trap that was seen in one."""

import json
import sys
from types import SimpleNamespace

import pytest

from katib_callbacks.reporting.ranks import LAUNCHER_VARIABLES, framework_rank, is_one_of_many, process_rank


def tf_config(kind, index, *cluster):
    return json.dumps({"cluster": {name: ["host:1234"] for name in cluster}, "task": {"type": kind, "index": index}})


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    """Another test may have loaded torch, even with an open process group."""
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)


@pytest.mark.parametrize(
    ("environ", "rank", "source"),
    [
        pytest.param({}, 0, "default", id="a plain process"),
        pytest.param({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, 0, "RANK", id="torchrun, first"),
        pytest.param({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1, "RANK", id="torchrun, second"),
        pytest.param({"RANK": "8", "LOCAL_RANK": "0"}, 8, "RANK", id="torchrun, first of the second node"),
        pytest.param({"RANK": "0", "PET_NODE_RANK": "1"}, 0, "RANK", id="c10d put rank 0 on the second node"),
        pytest.param({"RANK": "3", "PET_NODE_RANK": "0"}, 3, "RANK", id="torchrun in the first pod of a TrainJob"),
        pytest.param({"PET_NODE_RANK": "0", "PET_NNODES": "2"}, 0, "PET_NODE_RANK", id="TrainJob, first pod"),
        pytest.param({"PET_NODE_RANK": "1", "PET_NNODES": "2"}, 1, "PET_NODE_RANK", id="TrainJob, second pod"),
        pytest.param({"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0"}, 0, "OMPI_COMM_WORLD_RANK", id="OpenMPI, first"),
        pytest.param({"OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"}, 1, "OMPI_COMM_WORLD_RANK", id="OpenMPI, second"),
        pytest.param({"PMIX_RANK": "2"}, 2, "PMIX_RANK", id="PRRTE"),
        pytest.param({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, "PMI_RANK", id="MPICH"),
        pytest.param({"SLURM_PROCID": "4", "SLURM_LOCALID": "0"}, 4, "SLURM_PROCID", id="SLURM"),
        pytest.param({"RANK": "0", "HOROVOD_RANK": "1"}, 1, "HOROVOD_RANK", id="horovodrun hands on a pod's RANK"),
        pytest.param({"MV2_COMM_WORLD_RANK": "1", "PMI_RANK": "1"}, 1, "MV2_COMM_WORLD_RANK", id="MVAPICH2"),
        pytest.param({"PADDLE_TRAINER_ID": "1", "SLURM_PROCID": "0"}, 1, "PADDLE_TRAINER_ID", id="Paddle in SLURM"),
        pytest.param({"SLURM_PROCID": "3", "KATIB_CALLBACKS_RANK": "0"}, 0, "KATIB_CALLBACKS_RANK", id="overridden"),
        pytest.param({"RANK": "0", "KATIB_CALLBACKS_RANK": "2"}, 2, "KATIB_CALLBACKS_RANK", id="silenced by hand"),
        pytest.param({"RANK": "1", "KATIB_CALLBACKS_RANK": ""}, 1, "RANK", id="an empty override"),
        pytest.param({"JOB_COMPLETION_INDEX": "1"}, 0, "default", id="a pod of an Indexed Job"),
        pytest.param(
            {"JOB_COMPLETION_INDEX": "1", "KUBEFLOW_TRAINER_SERVER_URL": "https://server"},
            1,
            "JOB_COMPLETION_INDEX",
            id="a node of a TrainJob whose runtime names no framework",
        ),
        pytest.param(
            {"JOB_COMPLETION_INDEX": "1", "KUBEFLOW_TRAINER_SERVER_URL": "https://server", "RANK": "0"},
            0,
            "RANK",
            id="the completion index comes last",
        ),
        pytest.param({"JAX_PROCESS_ID": "1"}, 1, "JAX_PROCESS_ID", id="JAX"),
        pytest.param({"KERAS_DISTRIBUTION_PROCESS_ID": "1"}, 1, "KERAS_DISTRIBUTION_PROCESS_ID", id="Keras"),
        pytest.param({"LOCAL_RANK": "1"}, 0, "default", id="a local rank says nothing of the global one"),
        pytest.param({"WORLD_SIZE": "2"}, 0, "default", id="a size says nothing"),
        pytest.param({"RANK": ""}, 0, "default", id="empty"),
        pytest.param({"RANK": "abc"}, 0, "default", id="no number"),
        pytest.param({"RANK": "-1"}, 0, "default", id="negative"),
        pytest.param({"RANK": "1.0"}, 0, "default", id="no integer"),
        pytest.param({"RANK": "²"}, 0, "default", id="a digit that int does not read"),
        pytest.param({"RANK": "0 "}, 0, "RANK", id="a blank"),
        pytest.param({"RANK": "00"}, 0, "RANK", id="two zeros"),
        pytest.param({"RANK": "", "SLURM_PROCID": "1"}, 1, "SLURM_PROCID", id="the first that can be read decides"),
        pytest.param({"TF_CONFIG": tf_config("chief", 0, "chief", "worker")}, 0, "TF_CONFIG", id="chief"),
        pytest.param({"TF_CONFIG": tf_config("master", 0, "master", "worker")}, 0, "TF_CONFIG", id="master"),
        pytest.param({"TF_CONFIG": tf_config("worker", 0, "chief", "worker")}, 1, "TF_CONFIG", id="beside a chief"),
        pytest.param({"TF_CONFIG": tf_config("worker", 0, "master", "worker")}, 1, "TF_CONFIG", id="beside a master"),
        pytest.param({"TF_CONFIG": tf_config("worker", 0, "worker")}, 0, "TF_CONFIG", id="first worker"),
        pytest.param({"TF_CONFIG": tf_config("worker", 1, "worker")}, 1, "TF_CONFIG", id="second worker"),
        pytest.param({"TF_CONFIG": tf_config("worker", "1", "worker")}, 1, "TF_CONFIG", id="an index as a string"),
        pytest.param({"TF_CONFIG": tf_config("ps", 0, "ps", "worker")}, None, "TF_CONFIG", id="parameter server"),
        pytest.param({"TF_CONFIG": tf_config("evaluator", 0, "worker")}, None, "TF_CONFIG", id="evaluator"),
        pytest.param({"TF_CONFIG": '{"task": {"type": "worker", "index": 1}}'}, 1, "TF_CONFIG", id="no cluster"),
        pytest.param(
            {"TF_CONFIG": '{"cluster": null, "task": {"type": "worker", "index": 1}}'},
            1,
            "TF_CONFIG",
            id="a null",
        ),
        pytest.param({"TF_CONFIG": "{}"}, 0, "default", id="an empty TF_CONFIG"),
        pytest.param({"TF_CONFIG": "[]"}, 0, "default", id="a TF_CONFIG that is no object"),
        pytest.param({"TF_CONFIG": "{"}, 0, "default", id="a TF_CONFIG that is not JSON"),
        pytest.param({"TF_CONFIG": "[" * 100_000}, 0, "default", id="a TF_CONFIG that is too deep"),
        pytest.param(
            {"TF_CONFIG": '{"task": {"type": "worker", "index": 1e999}}'}, 0, "default", id="an endless index"
        ),
        pytest.param({"RANK": "9" * 5_000, "PMI_RANK": "1"}, 1, "PMI_RANK", id="a rank that Python cannot read"),
        pytest.param({"TF_CONFIG": tf_config("worker", "x", "worker")}, 0, "default", id="an index that is no number"),
        pytest.param({"TF_CONFIG": tf_config("worker", -1, "worker")}, 0, "default", id="a negative index"),
    ],
)
def test_the_launcher_is_read(environ, rank, source):
    result = process_rank(environ)

    assert (result.rank, result.is_global_zero, result.source) == (rank, rank == 0, source)


PYTORCHJOB = {  # of Kubeflow's training operator, in each pod; RANK is the pod's
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "2",
    "PET_MASTER_ADDR": "job-master-0",
    "PET_MASTER_PORT": "23456",
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "2",
}
TRAINJOB = {  # of Kubeflow Trainer's torch runtime
    "PET_MASTER_ADDR": "job-node-0-0.job",
    "PET_MASTER_PORT": "29400",
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "2",
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "ROLE_NAME": "default"}
JAX = {"JAX_COORDINATOR_ADDRESS": "job-node-0-0.job:6666", "JAX_NUM_PROCESSES": "2"}
OPENMPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}


def tfjob(kind, index, **replicas):
    """Return what the training operator tells each task; it adds where it runs."""
    cluster = {name: [f"job-{name}-{number}:2222" for number in range(count)] for name, count in replicas.items()}
    config = {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
    return {"TF_CONFIG": json.dumps(config)}


@pytest.mark.parametrize(
    ("environ", "rank", "source"),
    [
        # -- PyTorchJob
        pytest.param({**PYTORCHJOB, "RANK": "0", "PET_NODE_RANK": "0"}, 0, "RANK", id="PyTorchJob, master"),
        pytest.param({**PYTORCHJOB, "RANK": "1", "PET_NODE_RANK": "1"}, 1, "RANK", id="PyTorchJob, worker"),
        pytest.param(
            {**PYTORCHJOB, **TORCHRUN, "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "PET_NODE_RANK": "0"},
            1,
            "RANK",
            id="PyTorchJob, torchrun's second process in the master",
        ),
        pytest.param(
            {**PYTORCHJOB, **TORCHRUN, "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "PET_NODE_RANK": "1"},
            2,
            "RANK",
            id="PyTorchJob, torchrun's first process in the worker",
        ),
        # -- TrainJob
        pytest.param(
            {**TRAINJOB, **TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "PET_NODE_RANK": "1"},
            0,
            "RANK",
            id="TrainJob, rank zero on the second node by c10d",
        ),
        pytest.param(
            {**TRAINJOB, **TORCHRUN, "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "PET_NODE_RANK": "0"},
            2,
            "RANK",
            id="TrainJob, another rank on the first node by c10d",
        ),
        pytest.param({**TRAINJOB, "PET_NODE_RANK": "1"}, 1, "PET_NODE_RANK", id="TrainJob, no torchrun"),
        pytest.param({**JAX, "JAX_PROCESS_ID": "0"}, 0, "JAX_PROCESS_ID", id="TrainJob, first JAX process"),
        pytest.param({**JAX, "JAX_PROCESS_ID": "1"}, 1, "JAX_PROCESS_ID", id="TrainJob, second JAX process"),
        pytest.param(
            {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"},
            0,
            "default",
            id="MPI's launcher, which only has settings",
        ),
        # -- TFJob
        pytest.param(tfjob("chief", 0, chief=1, worker=2, ps=1), 0, "TF_CONFIG", id="TFJob, chief"),
        pytest.param(tfjob("worker", 0, chief=1, worker=2, ps=1), 1, "TF_CONFIG", id="TFJob, worker 0 beside a chief"),
        pytest.param(tfjob("worker", 1, chief=1, worker=2, ps=1), 2, "TF_CONFIG", id="TFJob, worker 1 beside a chief"),
        pytest.param(tfjob("ps", 0, chief=1, worker=2, ps=1), None, "TF_CONFIG", id="TFJob, parameter server 0"),
        pytest.param(tfjob("evaluator", 0, chief=1, worker=2), None, "TF_CONFIG", id="TFJob, evaluator 0"),
        pytest.param(tfjob("worker", 0, worker=2), 0, "TF_CONFIG", id="TFJob, worker 0"),
        pytest.param(tfjob("worker", 1, worker=2), 1, "TF_CONFIG", id="TFJob, worker 1"),
        pytest.param(tfjob("worker", 0, worker=2, chief=0), 0, "TF_CONFIG", id="TFJob, an empty list of chiefs"),
        pytest.param({**tfjob("worker", 1, worker=2), "RANK": ""}, 1, "TF_CONFIG", id="TFJob, an empty RANK"),
        # -- MPI
        pytest.param({**OPENMPI, "OMPI_COMM_WORLD_RANK": "0"}, 0, "OMPI_COMM_WORLD_RANK", id="OpenMPI 4, first"),
        pytest.param(
            {**OPENMPI, "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_NODE_RANK": "0"},
            2,
            "OMPI_COMM_WORLD_RANK",
            id="OpenMPI, the first of the second node",
        ),
        pytest.param({"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, 0, "PMI_RANK", id="PMI, first"),
        pytest.param({"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0"}, 2, "PMI_RANK", id="PMI, second node"),
        pytest.param(
            {**SLURM, **OPENMPI, "OMPI_COMM_WORLD_RANK": "1", "SLURM_PROCID": "0"},
            1,
            "OMPI_COMM_WORLD_RANK",
            id="mpirun in SLURM, where each node's daemon has a rank of SLURM's",
        ),
        # -- SLURM
        pytest.param({**SLURM, "SLURM_PROCID": "0", "SLURM_NODEID": "0"}, 0, "SLURM_PROCID", id="srun, first"),
        pytest.param({**SLURM, "SLURM_PROCID": "1", "SLURM_NODEID": "0"}, 1, "SLURM_PROCID", id="srun, same node"),
        pytest.param({**SLURM, "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, 2, "SLURM_PROCID", id="srun, second node"),
        pytest.param(SLURM, 0, "default", id="salloc, before srun"),
        pytest.param({**SLURM, **TORCHRUN, "SLURM_PROCID": "1", "RANK": "0"}, 0, "RANK", id="torchrun in srun, first"),
        pytest.param({**SLURM, **TORCHRUN, "SLURM_PROCID": "0", "RANK": "1"}, 1, "RANK", id="torchrun in srun, second"),
        # -- accelerate
        pytest.param(ACCELERATE, 0, "default", id="accelerate launch, one process"),
        pytest.param({**ACCELERATE, **TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, 0, "RANK", id="accelerate, first"),
        pytest.param({**ACCELERATE, **TORCHRUN, "RANK": "2", "LOCAL_RANK": "0"}, 2, "RANK", id="accelerate, next node"),
        pytest.param(
            {**ACCELERATE, "PMI_RANK": "1", "LOCAL_RANK": "-1"}, 1, "PMI_RANK", id="accelerate by mpirun, no local rank"
        ),
        # -- no numbers
        pytest.param({"RANK": "${RANK}"}, 0, "default", id="a reference that nobody resolved"),
        pytest.param({"RANK": "master", "OMPI_COMM_WORLD_RANK": "1"}, 1, "OMPI_COMM_WORLD_RANK", id="first a word"),
        pytest.param({"RANK": "-1", "SLURM_PROCID": "0"}, 0, "SLURM_PROCID", id="-1, which means none"),
        pytest.param({"RANK": "+1"}, 0, "default", id="a sign"),
        pytest.param({"RANK": "1_0"}, 0, "default", id="an underscore, which int would read"),
        pytest.param({"RANK": "\u0660"}, 0, "default", id="a zero in another script"),
        pytest.param({"RANK": "1\n"}, 1, "RANK", id="a line end"),
    ],
)
def test_a_cluster_is_read(environ, rank, source):
    result = process_rank(environ)

    assert (result.rank, result.is_global_zero, result.source) == (rank, rank == 0, source)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize(
    "environ",
    [{**PYTORCHJOB, "RANK": "0"}, {**TRAINJOB, "PET_NODE_RANK": "0"}, {**SLURM, "SLURM_PROCID": "0"}, {"RANK": "00"}],
    ids=["PyTorchJob", "TrainJob", "SLURM", "zeros"],
)
def test_a_spawned_child_that_inherits_rank_zero_is_not_rank_zero(environ, rank):
    result = process_rank(environ, framework=framework_rank(is_global_zero=False, rank=rank))

    assert (result.is_global_zero, result.rank, result.source) == (False, rank, "framework")


@pytest.mark.parametrize("task", [("ps", 0), ("evaluator", 0)])
def test_a_task_without_a_rank_never_reports_whatever_its_framework_says(task):
    result = process_rank(tfjob(*task, worker=2), framework=framework_rank(is_global_zero=True, rank=0))

    assert (result.is_global_zero, result.rank) == (False, None)
    assert str(result) == f"rank none (TF_CONFIG={task[0]} {task[1]})"


@pytest.mark.parametrize("variable", LAUNCHER_VARIABLES)
def test_every_launcher_is_believed_on_its_own(variable):
    value = {"TF_CONFIG": tf_config("worker", 1, "worker")}.get(variable, "1")

    result = process_rank({variable: value}, framework=framework_rank(is_global_zero=True))

    assert not result.is_global_zero
    assert result.source == variable


@pytest.mark.parametrize(
    ("environ", "is_certain"),
    [
        ({"RANK": "1"}, False),
        ({"RANK": "1", "WORLD_SIZE": "1"}, False),
        ({"RANK": "1", "WORLD_SIZE": "abc"}, False),
        ({"RANK": "1", "WORLD_SIZE": "2"}, True),
        ({"RANK": "2", "WORLD_SIZE": "2"}, False),
        ({"RANK": "0"}, True),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, True),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, True),
        ({"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "2"}, True),
        ({"SLURM_PROCID": "3", "SLURM_JOB_ID": "7"}, False),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, True),
        ({"KERAS_DISTRIBUTION_PROCESS_ID": "1", "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, True),
        ({"PET_NODE_RANK": "1", "PET_NNODES": "2"}, True),
        ({"PET_NODE_RANK": "1", "PET_NNODES": "1:4"}, True),
        ({"PET_NODE_RANK": "1", "PET_NNODES": "1"}, False),
        ({"TF_CONFIG": tf_config("worker", 1, "worker")}, False),
        ({"TF_CONFIG": tf_config("worker", 0, "chief", "worker")}, True),
        ({"TF_CONFIG": tf_config("evaluator", 0, "chief")}, True),
        ({"TF_CONFIG": tf_config("ps", 0, "ps")}, False),
        ({"TF_CONFIG": '{"cluster": {"worker": 2}, "task": {"type": "worker", "index": 1}}'}, False),
        ({"KATIB_CALLBACKS_RANK": "1"}, True),
        ({"JOB_COMPLETION_INDEX": "1", "KUBEFLOW_TRAINER_SERVER_URL": "https://server"}, True),
    ],
)
def test_a_rank_is_certain_if_there_are_that_many_processes(environ, is_certain):
    assert process_rank(environ, framework=framework_rank(is_global_zero=True)).is_certain is is_certain


@pytest.mark.parametrize(
    ("environ", "is_one"),
    [
        ({}, False),
        ({"RANK": "1"}, False),
        ({"WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PADDLE_TRAINERS_NUM": "2"}, True),
        ({"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, True),
        ({"PET_NNODES": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_NTASKS": "4"}, False),  # of an allocation, in which this step may be alone
        ({"TF_CONFIG": tf_config("worker", 0, "worker")}, True),
    ],
)
def test_a_process_knows_of_others_without_a_group_by_what_its_launcher_says(environ, is_one):
    assert is_one_of_many(environ) is is_one


def test_launchers_are_believed_in_order():
    environ = dict.fromkeys(LAUNCHER_VARIABLES, "0")
    environ["TF_CONFIG"] = tf_config("worker", 0, "worker")
    asked = []
    while environ:
        asked.append(process_rank(environ).source)
        del environ[asked[-1]]

    assert tuple(asked) == LAUNCHER_VARIABLES


def test_a_framework_that_denies_is_believed_over_a_launcher_that_agrees():
    # Lightning's children inherit RANK=0 from a pod; torch.multiprocessing's from their parent.
    result = process_rank({"RANK": "0"}, framework=framework_rank(is_global_zero=False, rank=1))

    assert (result.is_global_zero, result.rank, result.source) == (False, 1, "framework")


def test_a_framework_that_agrees_is_overruled_by_a_launcher_that_denies():
    # A single-device Trainer calls itself rank zero in every process of torchrun.
    result = process_rank({"RANK": "1"}, framework=framework_rank(is_global_zero=True))

    assert (result.is_global_zero, result.rank, result.source) == (False, 1, "RANK")


@pytest.mark.parametrize("environ", [{}, {"RANK": "0"}])
def test_a_framework_that_agrees_is_the_source_if_nothing_denies(environ):
    result = process_rank(environ, framework=framework_rank(is_global_zero=True, source="lightning"))

    assert (result.is_global_zero, result.rank, result.source) == (True, 0, "lightning")


def test_a_framework_may_not_know_the_rank():
    result = process_rank({}, framework=framework_rank(is_global_zero=False))

    assert (result.is_global_zero, result.rank) == (False, None)
    assert str(result) == "rank none (framework=not zero)"


class Distributed(SimpleNamespace):
    """``torch.distributed`` in one of its states; tests/frameworks has the real one."""

    def is_available(self):
        return self.rank is not None

    def is_initialized(self):
        return self.rank is not None and self.rank >= 0

    def get_rank(self):
        assert self.is_initialized(), "torch raises then"
        return self.rank


@pytest.mark.parametrize(
    ("torch_rank", "environ", "rank", "source"),
    [
        (1, {"RANK": "0"}, 1, "torch.distributed"),
        (0, {"RANK": "0"}, 0, "torch.distributed"),
        (0, {"RANK": "1"}, 1, "RANK"),
        (-1, {"RANK": "1"}, 1, "RANK"),
        (-1, {}, 0, "default"),
        (None, {"RANK": "1"}, 1, "RANK"),
    ],
)
def test_torch_is_asked_if_it_is_loaded_and_initialised(monkeypatch, torch_rank, environ, rank, source):
    monkeypatch.setitem(sys.modules, "torch.distributed", Distributed(rank=torch_rank))

    result = process_rank(environ)

    assert (result.rank, result.is_global_zero, result.source) == (rank, rank == 0, source)


def test_torch_is_not_asked_where_a_framework_answers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed", Distributed(rank=1))

    assert process_rank({}, framework=framework_rank(is_global_zero=True)).is_global_zero


class Jax(SimpleNamespace):
    """``jax._src.distributed`` in one of its states; tests/distributed has the real one."""


@pytest.mark.parametrize(
    ("state", "torch_rank", "rank", "source"),
    [
        (Jax(process_id=0, client=None), None, 0, "default"),
        (Jax(process_id=0, client=object()), None, 0, "jax.distributed"),
        (Jax(process_id=1, client=object()), None, 1, "jax.distributed"),
        (Jax(process_id=1, client=None), None, 1, "jax.distributed"),
        (Jax(process_id=1, client=object()), 0, 1, "jax.distributed"),
        (Jax(process_id=0, client=object()), 1, 1, "torch.distributed"),
        (Jax(), None, 0, "default"),
    ],
)
def test_jax_is_asked_if_it_is_loaded(monkeypatch, state, torch_rank, rank, source):
    monkeypatch.setitem(sys.modules, "jax._src.distributed", Jax(global_state=state))
    monkeypatch.setitem(sys.modules, "torch.distributed", Distributed(rank=torch_rank))

    result = process_rank({"RANK": "0"} if source != "default" else {})

    assert (result.rank, result.is_global_zero, result.source) == (rank, rank == 0, source)


def test_the_environment_is_the_one_handed_in(monkeypatch):
    monkeypatch.setenv("RANK", "1")

    assert process_rank({}).is_global_zero


def test_a_rank_says_where_it_was_read():
    assert str(process_rank({"RANK": "03"})) == "rank 3 (RANK=03)"
    assert str(process_rank({"TF_CONFIG": tf_config("ps", 1, "ps")})) == "rank none (TF_CONFIG=ps 1)"
