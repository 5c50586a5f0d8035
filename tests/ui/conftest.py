"""What a test serves: an application, or the page of a home whose experiments were really run."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from served import TOKEN, serving

from katib_callbacks.visualization.page.app import page
from katib_callbacks.visualization.page.local_source import LocalSource

sys.path.append(str(Path(__file__).parents[1] / "local"))

from homes import Local, experiment

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"

MIXED = """
import os, pathlib, sys
submitted = pathlib.Path(os.environ["KATIB_CALLBACKS_SUBMIT_DIR"])
number = len(list(submitted.glob("begun-*")))
(submitted / f"begun-{number}").touch()
print("parameter", os.environ["X"], flush=True)
if number == 1:
    sys.exit("out of memory: <b>not bold</b>")
if number == 2:
    sys.exit(0)
for epoch in range(5):
    print(f"loss={1 / (epoch + 1)}", flush=True)
"""
"""The first trial succeeds, the second one fails, and the third one reports nothing."""

STDOUT = {"collector": {"kind": "StdOut"}}


def mixed(name="mixed"):
    """Return an experiment of such trials, with a parameter that would like to be markup."""
    parameters = [{"name": "x", "parameterType": "categorical", "feasibleSpace": {"list": [HOSTILE]}}]
    budget = {"maxTrialCount": 3, "parallelTrialCount": 1, "maxFailedTrialCount": 3}
    return experiment(MIXED, name, parameters=parameters, metricsCollectorSpec=STDOUT, **budget)


@pytest.fixture
def serve():
    """Return a function that serves an application until the test is over, and returns its address."""
    with ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(serving(app, **options))


@pytest.fixture
def serve_home(serve):
    """Return a function that serves the page of a home, and returns its address."""
    with ExitStack() as stack:

        def serve_home(home):
            source = LocalSource(home)
            stack.callback(source.close)
            return serve(page(source))

        yield serve_home


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Return a home in which an experiment was run: a trial that succeeded, one that failed, one without metrics."""
    folder = tmp_path_factory.mktemp("ran")
    local = Local(folder / "home", folder)
    local.run(mixed())
    return local


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return Local(tmp_path / "home", folder)


@pytest.fixture
def headers():
    return {"Authorization": f"Bearer {TOKEN}"}
