"""Who is rank zero: one row for each launcher, and for each trap that was seen in one."""

import json
import sys
from types import SimpleNamespace

import pytest

from katib_callbacks.distributed import LAUNCHER_VARIABLES, framework_rank, process_rank


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
        pytest.param({"TF_CONFIG": "{"}, 0, "default", id="a TF_CONFIG that is no JSON"),
        pytest.param({"TF_CONFIG": tf_config("worker", "x", "worker")}, 0, "default", id="an index that is no number"),
    ],
)
def test_the_launcher_is_read(environ, rank, source):
    result = process_rank(environ)

    assert (result.rank, result.is_global_zero, result.source) == (rank, rank == 0, source)


@pytest.mark.parametrize("variable", LAUNCHER_VARIABLES)
def test_every_launcher_is_believed_on_its_own(variable):
    value = {"TF_CONFIG": tf_config("worker", 1, "worker")}.get(variable, "1")

    result = process_rank({variable: value}, framework=framework_rank(is_global_zero=True))

    assert not result.is_global_zero
    assert result.source == variable


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


def test_the_environment_is_the_one_handed_in(monkeypatch):
    monkeypatch.setenv("RANK", "1")

    assert process_rank({}).is_global_zero


def test_a_rank_says_where_it_was_read():
    assert str(process_rank({"RANK": "03"})) == "rank 3 (RANK=03)"
    assert str(process_rank({"TF_CONFIG": tf_config("ps", 1, "ps")})) == "rank none (TF_CONFIG=ps 1)"
