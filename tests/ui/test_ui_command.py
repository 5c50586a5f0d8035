"""``katib-callbacks ui``: a process that serves, what it prints, and what it says when it cannot."""

import re
import signal
import subprocess
import sys
from functools import partial

import httpx
import pytest
import served
from served import CLIENT

from katib_callbacks import KatibReporter
from katib_callbacks.cli import main
from katib_callbacks.cli.logs import read_rows
from katib_callbacks.page.app import page
from katib_callbacks.page.db_manager_source import DBManagerSource

COMMAND = [sys.executable, "-m", "katib_callbacks.cli", "ui"]
WAIT_S = 60.0


def test_the_command_prints_a_url_that_lets_in_and_ends_at_ctrl_c(ran):
    command = [*COMMAND, "--home", str(ran.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/\?token=\S+)\n", process.stdout.readline())[1]
            with httpx.Client(follow_redirects=True, **CLIENT) as browser:
                assert "<main" in browser.get(url).text
                base = url.partition("?")[0]
                assert [one["name"] for one in browser.get(f"{base}api/experiments").json()] == ["mixed"]
            assert served.get(base).status_code == 401
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()


def test_the_command_shows_trials_of_a_db_manager_to_other_machines_and_says_so(katib_db_manager):
    with KatibReporter(katib_db_manager.address, trial_name="run-a") as reporter:
        reporter.report({"loss": 0.5})
    trials = ["--db-manager", katib_db_manager.address, "--trial", "run-a", "run-b", "--minimize", "loss"]
    command = [*COMMAND, *trials, "--host", "0.0.0.0"]  # noqa: S104  for a moment, behind a token
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().removeprefix("open ").rstrip()
            assert process.stdout.readline().startswith("other machines reach it too, without TLS")
            with httpx.Client(follow_redirects=True, **CLIENT) as browser:
                assert "<main" in browser.get(url).text
                base = url.partition("?")[0]
                (shown,) = browser.get(f"{base}api/experiments").json()
                assert (shown["name"], shown["best"]["name"], shown["best"]["value"]) == ("run", "run-a", 0.5)
                assert (
                    "no experiment 'walk'; there is: run" in browser.get(f"{base}api/experiments/walk").json()["error"]
                )
                assert "no trial 'run-c'" in browser.get(f"{base}api/trials/run-c").json()["error"]
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--home", "nowhere"], "nowhere holds no experiments"),
        (["--trial", "a-1"], "--trial goes with --db-manager"),
        (["--db-manager", "localhost:1", "--experiment", "a"], "a DB manager does not list trials; give their names"),
        (["--db-manager", "localhost:1", "--trial", "a\0"], "the trial's name 'a\\x00' "),
        (
            ["--db-manager", "localhost:1", "--experiment", "b", "--trial", "a-1"],
            "the name of no trial begins with 'b'",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["ui", *arguments]) != 0
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # a home that is misspelled is not made


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(ran, package):
    program = f"import sys; sys.modules[{package!r}] = None\nfrom katib_callbacks.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "ui", "--home", str(ran.home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)

    assert done.returncode == 2
    assert 'pip install "katib-callbacks[ui]"' in done.stderr


def test_nothing_of_it_is_imported_by_a_trial_or_by_another_command():
    program = (
        "import sys\nfrom katib_callbacks import cli, KatibReporter\ncli._parser()\n"
        "print([name for name in sys.modules if name.startswith(('starlette', 'uvicorn', 'katib_callbacks.page'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=WAIT_S)

    assert done.stdout == "[]\n"


def test_rows_of_a_db_manager_are_shown_for_the_trials_that_are_named(katib_db_manager, serve, headers):
    for trial, losses in (("run-a", (0.5, 0.25)), ("run-b", (0.75,))):
        for loss in losses:
            with KatibReporter(katib_db_manager.address, trial_name=trial) as reporter:
                reporter.report({"loss": loss})
    read = partial(read_rows, "--db-manager", katib_db_manager.address, metric_name="", timeout_s=WAIT_S)
    url = serve(page(DBManagerSource(read, "run", ["run-a", "run-b", "run-c"], ("minimize", "loss"))))

    def get(path, **query):
        return served.get(f"{url}{path}", params=query, headers=headers).json()

    (one,) = get("api/experiments")
    assert (one["name"], one["best"]["name"], one["best"]["value"]) == ("run", "run-a", 0.25)
    trials = get("api/experiments/run")["trials"]
    assert [trial["state"] for trial in trials] == ["Reported", "Reported", "No rows"]
    assert trials[0]["metrics"] == {"loss": {"latest": "0.25", "min": "0.25", "max": "0.5"}}
    assert get("api/curves", trial="run-a")["run-a"]["metrics"]["loss"]["value"] == [0.5, 0.25]
    assert get("api/trials/run-b")["value"] == 0.75
    assert "no log" in get("api/trials/run-b/log/x")["error"]


def test_a_db_manager_that_does_not_answer_is_said_and_asked_again_later(serve, headers):
    read = partial(read_rows, "--db-manager", "127.0.0.1:1", metric_name="", timeout_s=5.0)
    url = serve(page(DBManagerSource(read, "run", ["run-a"])))

    for _ in range(2):  # the second time it is not asked
        answer = served.get(f"{url}api/experiments", headers=headers)
        assert answer.status_code == 503
        assert "no answer from a DB manager at 127.0.0.1:1" in answer.json()["error"]
