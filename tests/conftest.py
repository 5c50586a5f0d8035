"""What every test is held to: nothing leaks, no error is swallowed, and what a session installed is not skipped.

The guard compares threads, sockets and environment before and after each test. It waits a moment for what ends by
itself, puts the environment back, and fails the test for the rest. An ERROR in a log is a swallowed error, unless the
test announces it with ``@pytest.mark.logs_error("pattern", ...)``; then it must come.
"""

import gc
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["pytester"]

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

FRAMEWORKS = Path("tests", "frameworks")

GRACE_S = 60.0
"""How long threads and sockets may take to end by themselves: gRPC closes its sockets in the background, one that still
connects after 20 s, and on a busy machine that was seen. Only a leak waits for all of it."""

OUR_THREADS = "katib-callbacks"
"""What the names of this project's own threads begin with: not even a daemon among them may outlive its test."""

OUR_LOGGERS = ("katib_callbacks", "grpc", "concurrent.futures")
"""Where a swallowed error shows: gRPC and the executors log what a servicer or a callback of ours raises."""

FRAMEWORK_VARIABLES = re.compile(
    r"PYTEST_CURRENT_TEST|(KMP|OMP|MKL|CUDA|TORCH|TORCHINDUCTOR|TF|TF2|TPU|XLA|JAX|GRPC|PL|NCCL|TOKENIZERS|TRITON|"
    r"ACCELERATE|HF)_.*"
)
"""Set by pytest and by frameworks when they are imported or seeded, whichever test happens to be first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="NAMES",
        help="Frameworks (comma-separated folders of tests/frameworks) whose tests must run: a skip is a failure.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "logs_error(*patterns): the test makes our code log these errors.")
    config.addinivalue_line(
        "markers", "long: takes long and is the same everywhere; the session `tests` alone runs it."
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background,
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and processes that a test interrupts inherit it


# -- skips ---------------------------------------------------------------------------------------------------------


def _required(config: pytest.Config) -> set[str]:
    return {name.strip() for name in config.getoption("--require").split(",") if name.strip()}


def _framework(config: pytest.Config, path: Path) -> str | None:
    """Return the folder of tests/frameworks that ``path`` lies in."""
    root = config.rootpath / FRAMEWORKS
    return path.relative_to(root).parts[0] if path != root and path.is_relative_to(root) else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    _fail_if_skipped(report, collector.config, collector.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    _fail_if_skipped(report, item.config, item.path)
    return report


def _fail_if_skipped(report: pytest.CollectReport | pytest.TestReport, config: pytest.Config, path: Path) -> None:
    framework = _framework(config, path)
    if report.skipped and not hasattr(report, "wasxfail") and framework in _required(config):
        report.outcome = "failed"
        report.longrepr = f"skipped, though --require names {framework}: {report.longrepr}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a required framework has no test at all: a renamed folder must not pass for a green one."""
    required = _required(session.config)
    missing = required - {_framework(session.config, item.path) for item in session.items}
    if missing and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise pytest.UsageError(f"--require names frameworks without a test: {', '.join(sorted(missing))}")


# -- time ----------------------------------------------------------------------------------------------------------


def pytest_collection_finish() -> None:
    """Set aside what imports have made: trainers and the guard collect garbage, and each time would walk through it."""
    gc.collect()
    gc.freeze()


# -- leaks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _guard(request: pytest.FixtureRequest) -> Iterator[None]:
    environment = dict(os.environ)
    threads = set(threading.enumerate())
    sockets = _sockets()
    log = _ErrorLog()
    loggers = [logging.getLogger(name) for name in OUR_LOGGERS]
    for logger in loggers:
        logger.addHandler(log)
    yield
    for logger in loggers:
        logger.removeHandler(log)

    marker = request.node.get_closest_marker("logs_error")
    complaints = [
        *_environment_changes(environment),
        *_after_grace(lambda: _thread_leaks(threads)),
        *_after_grace(lambda: [f"leaked {name}" for name in sorted(_sockets() - sockets)]),
        *_unexpected_errors(log.messages, marker.args if marker else ()),
    ]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


class _ErrorLog(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))
        record.exc_info = None  # its text stays; pytest keeps the record, whose frames would hold a socket open


def _unexpected_errors(messages: Iterable[str], patterns: Iterable[str]) -> Iterator[str]:
    unseen = list(dict.fromkeys(patterns))
    expected = tuple(unseen)
    for message in messages:
        matching = [pattern for pattern in expected if re.search(pattern, message)]
        if not matching:
            yield f"swallowed an error: {message}"
        unseen = [pattern for pattern in unseen if pattern not in matching]
    for pattern in unseen:
        yield f"logged no error that matches {pattern!r}"


def _environment_changes(before: Mapping[str, str]) -> Iterator[str]:
    """Yield what has changed in the environment, and put it back."""
    for name in sorted(before.keys() | os.environ.keys()):
        old, new = before.get(name), os.environ.get(name)
        if old == new or FRAMEWORK_VARIABLES.fullmatch(name):
            continue
        yield f"left the environment changed: {name} was {old!r} and is {new!r}"
        if old is None:
            del os.environ[name]
        else:
            os.environ[name] = old


def _thread_leaks(before: set[threading.Thread]) -> list[str]:
    return [
        f"leaked the thread {thread.name}"
        for thread in threading.enumerate()
        if thread not in before and (not thread.daemon or thread.name.startswith(OUR_THREADS))
    ]


def _sockets() -> set[str]:
    """Return this process's sockets by inode; none where there is no /proc to ask."""
    if not sys.platform.startswith("linux"):
        return set()
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208  half the cost of pathlib's, twice for each test
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  as above
        except OSError:  # the descriptor of this very listing, or one closed meanwhile
            continue
        if name.startswith("socket:"):
            names.add(name)
    return names


def _after_grace(leaks: Callable[[], list[str]]) -> list[str]:
    end = time.monotonic() + GRACE_S
    found = leaks()
    while found and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
        found = leaks()
    return found


# -- ports ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, for as long as the test lasts."""
    from beside import held_port  # noqa: PLC0415  tests of this file have no other

    with held_port() as port:
        yield port


# -- autolog -------------------------------------------------------------------------------------------------------


@pytest.fixture
def autolog(monkeypatch):
    """Hand out ``katib_callbacks.autolog`` as a new process has it; what it patched is undone after the test."""
    from katib_callbacks import _autolog  # noqa: PLC0415  not in every test session

    state = _autolog.state.State()
    monkeypatch.setattr(_autolog.state, "STATE", state)
    yield _autolog.autolog
    state.turn_off()
    assert [finder for finder in sys.meta_path if isinstance(finder, _autolog.state.AfterImport)] == []
