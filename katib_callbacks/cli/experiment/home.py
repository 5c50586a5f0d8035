"""The state that commands read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.store import ExperimentStore


@contextmanager
def opened(home: Path) -> Iterator[ExperimentStore]:
    """Open the state of a home that there is: a misspelled one is not made."""
    path = database(home)
    if not path.exists():
        raise ExperimentError(f"{home} holds no experiments (no {path.name}); --home names another folder")
    with ExperimentStore(path) as store:
        yield store
