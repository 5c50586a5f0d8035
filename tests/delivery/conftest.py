"""Partners of a test's own."""

from collections.abc import Iterator

import pytest
from partners import FastClock, ScriptedDBManager

from katib_callbacks import KatibReporter


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


@pytest.fixture
def server(clock: FastClock) -> Iterator[ScriptedDBManager]:
    with ScriptedDBManager(clock.now_s) as server:
        yield server


@pytest.fixture
def reporter(server: ScriptedDBManager, clock: FastClock) -> Iterator[KatibReporter]:
    with KatibReporter(server.address, trial_name="trial", timeout_s=480, _runtime=clock.runtime) as reporter:
        yield reporter
