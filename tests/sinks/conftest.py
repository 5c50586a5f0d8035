"""Options for sinks that are made by hand, and servers that misbehave."""

import os

import pytest
from http_partners import HttpPartner

from katib_callbacks import SinkOptions
from katib_callbacks.net.masking import label_of
from katib_callbacks.reporting import background
from katib_callbacks.settings import Runtime

IS_REQUIRED = bool(os.environ.get("TEST_PUSHGATEWAY"))
"""Set by nox's ``sinks``: what is missing then is an error."""


def pytest_collection_modifyitems(items):
    if not IS_REQUIRED:
        return
    for item in items:
        item.add_marker(pytest.mark.required)


def pytest_configure(config):
    config.addinivalue_line("markers", "required: a skip is a failure.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.get_closest_marker("required"):
        report.outcome, report.longrepr = "failed", f"skipped, though TEST_PUSHGATEWAY is set: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Wait for a sink beside the first for as long as a loaded machine may need; tests of one that hangs wait less."""
    monkeypatch.setattr(background, "GRACE_S", 60.0)


@pytest.fixture
def options():
    def make(name, **environ):
        return SinkOptions(name, label_of(name), "trial", Runtime(environ=lambda: environ))

    return make


@pytest.fixture
def partner():
    with HttpPartner() as made:
        yield made
