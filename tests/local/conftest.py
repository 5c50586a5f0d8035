"""A home for the experiments of a test."""

import pytest
from homes import Local


@pytest.fixture(autouse=True)
def no_gpus_of_other_tests(tmp_path, monkeypatch):
    """Share out GPUs among the experiments of one test only: others may run beside it."""
    monkeypatch.setattr("katib_callbacks.local.trials.gpus.LOCKS", tmp_path / "gpus")


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return Local(tmp_path / "home", folder)
