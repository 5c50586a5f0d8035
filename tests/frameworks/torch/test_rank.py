"""The rank of a process with a real process group."""

import pytest

from katib_callbacks.reporting.ranks import process_rank

distributed = pytest.importorskip("torch.distributed")


@pytest.fixture
def process_group(tmp_path):
    """A process group of this process alone."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_an_initialised_process_group_is_asked(process_group):
    rank = process_rank({})

    assert (rank.is_global_zero, rank.rank, rank.source) == (True, 0, "torch.distributed")


def test_a_launcher_may_contradict_the_process_group(process_group):
    rank = process_rank({"RANK": "1"})

    assert (rank.is_global_zero, rank.rank, rank.source) == (False, 1, "RANK")


def test_without_a_process_group_the_launcher_is_believed():
    assert not distributed.is_initialized()
    assert process_rank({"RANK": "1"}).source == "RANK"
