"""What the callbacks of all frameworks are put through."""

import copy
import pickle

import pytest


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))  # noqa: S301  our own bytes


def cloudpickled(callback):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(callback))


@pytest.fixture(params=[copy.deepcopy, pickled, cloudpickled], ids=["deepcopy", "pickle", "cloudpickle"])
def copied(request):
    """Each way to copy a callback."""
    return request.param
