"""The guards of tests/conftest.py, driven by tests that break each rule in a pytest of their own."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture
def inner(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text().replace("GRACE_S = 60.0", "GRACE_S = 0.2"))
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\naddopts = '--strict-markers -p no:randomly'")
    return pytester


def test_a_test_that_leaks_fails_and_its_neighbours_pass(inner):
    inner.makepyfile(
        """
        import logging, os, socket, threading
        import pytest

        event = threading.Event()
        kept = []

        def start(name, daemon):
            threading.Thread(target=event.wait, name=name, daemon=daemon).start()

        def test_thread(): start("worker", False)
        def test_own_daemon(): start("katib-callbacks heartbeat", True)
        def test_foreign_daemon(): start("tqdm", True)
        def test_variable_set(): os.environ["KATIB_TRIAL_NAME"] = "leaked"
        def test_variable_is_put_back(): assert "KATIB_TRIAL_NAME" not in os.environ
        def test_variable_removed(): del os.environ["PATH"]
        def test_variable_is_there_again(): assert "PATH" in os.environ
        def test_variable_of_a_framework(): os.environ["KMP_INIT_AT_FORK"] = "FALSE"
        def test_variable_by_monkeypatch(monkeypatch): monkeypatch.setenv("KATIB_TRIAL_NAME", "mine")
        def test_socket(): kept.append(socket.socket())
        def test_socket_closed():
            with socket.socket(): pass
        def test_error(): logging.getLogger("katib_callbacks.recording.recorder").error("internal")
        def test_servicer_error(): logging.getLogger("grpc._server").error("Exception calling application")
        def test_warning(): logging.getLogger("katib_callbacks.recording.recorder").warning("expected")
        @pytest.mark.logs_error("inter.al")
        def test_expected_error(): logging.getLogger("katib_callbacks.recording.recorder").error("internal")
        @pytest.mark.logs_error("something else")
        def test_other_error(): logging.getLogger("katib_callbacks.recording.recorder").error("internal")
        @pytest.mark.logs_error("internal")
        def test_error_that_did_not_come(): pass
        def test_end(): event.set()
        """
    )

    result = inner.runpytest_subprocess()

    result.assert_outcomes(passed=18, errors=9)
    for test, complaint in {
        "thread": "leaked the thread worker",
        "own_daemon": "leaked the thread katib-callbacks heartbeat",
        "variable_set": "left the environment changed: KATIB_TRIAL_NAME was None and is 'leaked'",
        "variable_removed": "left the environment changed: PATH was *",
        "socket": "leaked socket:*",
        "error": "swallowed an error: katib_callbacks.recording.recorder: internal",
        "servicer_error": "swallowed an error: grpc._server: Exception calling application",
        "other_error": "swallowed an error: katib_callbacks.recording.recorder: internal",
        "error_that_did_not_come": "logged no error that matches 'internal'",
    }.items():
        result.stdout.fnmatch_lines([f"*ERROR at teardown of test_{test} *", complaint], consecutive=True)


@pytest.fixture
def with_skips(inner: pytest.Pytester) -> pytest.Pytester:
    for name, source in {
        "tests/frameworks/lightning/test_import.py": "import pytest\npytest.importorskip('no_such_package')",
        "tests/frameworks/keras/test_skip.py": "import pytest\ndef test_skip(): pytest.skip('no GPU')",
        "tests/unit/test_other.py": "import pytest\ndef test_pass(): pass\ndef test_skip(): pytest.skip('why not')",
    }.items():
        path = inner.path / name
        path.parent.mkdir(parents=True)
        path.write_text(source)
    return inner


def test_a_framework_that_is_not_installed_is_skipped(with_skips):
    with_skips.runpytest_subprocess().assert_outcomes(passed=1, skipped=3)


def test_a_skip_of_a_required_framework_is_a_failure(with_skips):
    result = with_skips.runpytest_subprocess("--require", "keras,lightning", "--continue-on-collection-errors")

    result.assert_outcomes(passed=1, skipped=1, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(["*skipped, though --require names lightning*no_such_package*"])
    result.stdout.fnmatch_lines_random(["*skipped, though --require names keras*no GPU*"])


def test_a_required_framework_without_tests_is_a_failure(with_skips):
    result = with_skips.runpytest_subprocess("--require", "transformers")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*without a test: transformers"])
