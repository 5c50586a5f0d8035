"""A home for the experiments of a test."""

import pytest
from homes import Local


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return Local(tmp_path / "home", folder)
