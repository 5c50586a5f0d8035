"""What the callbacks of all frameworks are put through."""

import copy
import itertools
import pickle

import pytest
from status_server import StatusServer

from frameworks.progress import Curve
from katib_callbacks import KatibReporter
from katib_callbacks.settings import Runtime


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))  # noqa: S301  our own bytes


def cloudpickled(callback):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(callback))


@pytest.fixture(params=[copy.deepcopy, pickled, cloudpickled], ids=["deepcopy", "pickle", "cloudpickle"])
def copied(request):
    """Each way to copy a callback."""
    return request.param


@pytest.fixture
def rows(katib_db_manager):
    """Return a function that reads back what was delivered."""
    return lambda: [(row.name, float(row.value)) for row in katib_db_manager.metrics()]


@pytest.fixture
def warnings_of(caplog, katib_db_manager):
    """Return a function that tells what our own code has warned of, in a trial."""
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("katib_callbacks") and record.levelname == "WARNING"
    ]


@pytest.fixture
def runtime():
    """A runtime in which any step is due, whose requests wait for none before them."""
    ticks = itertools.count(step=10)
    return Runtime(monotonic=lambda: float(next(ticks)), wait=lambda event, timeout_s: event.is_set())


@pytest.fixture
def curve(runtime):
    """A sink that writes down what it is told of a training; ``curve.reporter`` reports there."""
    curve = Curve()
    with KatibReporter(trial_name="trial", sinks=[curve], _runtime=runtime) as curve.reporter:
        yield curve


@pytest.fixture
def status_server(tmp_path, monkeypatch):
    """Run the test in a TrainJob that is no Katib trial."""
    with StatusServer(tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def status_reporter(status_server, runtime):
    """A reporter that shows each step there."""
    with KatibReporter(sinks=["auto"], timeout_s=1e6, _runtime=runtime) as reporter:
        yield reporter
