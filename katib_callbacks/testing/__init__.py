"""A pytest plugin, and a reporter without a server: run training code as a trial, and assert on what it delivered.

The fixture ``katib_db_manager`` is there as soon as the package is installed with the extra ``db-manager``; nothing has
to be imported::

    from my_project import train

    def test_training_reports_its_accuracy(katib_db_manager):
        train(epochs=1)  # with KatibReportCallback("accuracy"), configured by the environment as in a pod

        assert [log.name for log in katib_db_manager.metrics()] == ["accuracy"]
        assert katib_db_manager.latest()["accuracy"] > 0.5

It starts the embedded DB manager on a free port and on a database in the test's ``tmp_path``, sets ``KATIB_TRIAL_NAME``
and ``KATIB_DB_MANAGER_ADDRESS`` for the test, also for the processes that it starts, and yields a
:class:`TrialDBManager`. Nothing is replaced by a double: rows travel over gRPC and are read back the same way. What the
shell or the pod that runs the tests has in its environment (``KATIB_CALLBACKS_*``, ``RANK`` and other launchers'
variables, ``KUBEFLOW_TRAINER_*``) does not reach the test; what the test itself sets does.

Where no server is wanted, hand a :class:`FakeReporter` to the callback: its rows end in memory.

Loaded in every pytest run of an environment that has this package, so it imports nothing but pytest until something of
it is used.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from katib_callbacks.metrics import StoredMetricLog
    from katib_callbacks.testing.fake_reporter import FakeReporter, RecordingSink

__all__ = ["FakeReporter", "RecordingSink", "TrialDBManager", "katib_db_manager"]

DEFAULT_TRIAL_NAME = "test-trial"

_SHELL = dict(os.environ)
"""The environment when pytest began: what a test or a fixture sets is not in it."""

_HEARD_PREFIXES = ("KATIB_CALLBACKS_", "KUBEFLOW_TRAINER_", "PET_", "JOB_COMPLETION_INDEX")

_READ_TIMEOUT_S = 30.0
"""For a server in this very process; a loaded machine may need a while."""

_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))


class TrialDBManager:
    """The DB manager that runs for a test. Reads only; code under test does the writing.

    Attributes:
        address: Where it listens, ``host:port``.
        trial_name: The trial that ``KATIB_TRIAL_NAME`` names, and that the methods mean by default.
    """

    def __init__(self, address: str, trial_name: str) -> None:
        self.address = address
        self.trial_name = trial_name

    def metrics(self, trial: str | None = None, name: str | None = None) -> "list[StoredMetricLog]":
        """Read back over gRPC what was delivered, ordered by time, rows of one time in the order of their arrival.

        Args:
            trial: Which trial; None for ``trial_name``.
            name: Only this metric; None for all.
        """
        import grpc  # noqa: PLC0415  not before a test asks for it

        from katib_callbacks.wire.client import DBManagerStub  # noqa: PLC0415  as grpc

        # A channel for each read: code under test may fork, and an open channel does not survive that.
        with grpc.insecure_channel(self.address, options=_CHANNEL_OPTIONS) as channel:
            return DBManagerStub(channel).get(
                self.trial_name if trial is None else trial, metric_name=name or "", timeout_s=_READ_TIMEOUT_S
            )

    def latest(self, trial: str | None = None) -> dict[str, float]:
        """Return each metric's latest value, as Katib picks it: the greatest time, the later row of equal ones.

        Args:
            trial: Which trial; None for ``trial_name``.

        Raises:
            ValueError: A value is no number.
        """
        return {log.name: float(log.value) for log in self.metrics(trial)}


@pytest.fixture
def katib_db_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialDBManager]:
    """Run the test as a trial, with a DB manager of its own to report to; see :mod:`katib_callbacks.testing`."""
    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415  names the extra if SQLAlchemy is missing
    from katib_callbacks.settings import DB_MANAGER_ADDRESS, TRIAL_NAME  # noqa: PLC0415  as above

    _forget_the_shell(monkeypatch)
    with DBManager(tmp_path / "katib.db") as server:
        monkeypatch.setenv(TRIAL_NAME, DEFAULT_TRIAL_NAME)
        monkeypatch.setenv(DB_MANAGER_ADDRESS, server.address)
        yield TrialDBManager(server.address, DEFAULT_TRIAL_NAME)


def _forget_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out of the environment what changes whether, where and how a training reports."""
    from katib_callbacks.reporting.ranks import LAUNCHER_VARIABLES  # noqa: PLC0415  as above

    for name, value in _SHELL.items():
        is_heard = name in LAUNCHER_VARIABLES or name.startswith(_HEARD_PREFIXES)
        if is_heard and os.environ.get(name) == value:
            monkeypatch.delenv(name)


if not TYPE_CHECKING:  # hidden from type checkers, which would take any misspelt name for a name of ours

    def __getattr__(name: str) -> object:
        """Load the reporter on first use (PEP 562)."""
        if name not in {"FakeReporter", "RecordingSink"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from katib_callbacks.testing import fake_reporter  # noqa: PLC0415  as above

        value = globals()[name] = getattr(fake_reporter, name)
        return value
