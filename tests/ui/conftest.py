"""What a test serves: an application, or the page of a home whose experiments were really run."""

from contextlib import ExitStack

import pytest
from mixed import Local, mixed
from served import TOKEN, serving

from katib_callbacks.page.app import page
from katib_callbacks.page.local_source import LocalSource


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
