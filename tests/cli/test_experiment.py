"""``katib-callbacks experiment``: run, list, status, logs, resume, delete, as a person or a script uses them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from katib_callbacks.cli import main

pytest.importorskip("optuna", reason="`tests` has it")

from katib_callbacks.local.api.manifest import read_file
from katib_callbacks.local.running import runner

TEXT = """
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata:
  name: one
spec:
  objective: {type: minimize, objectiveMetricName: loss}
  algorithm: {algorithmName: random, algorithmSettings: [{name: random_state, value: "1"}]}
  parallelTrialCount: 2
  maxTrialCount: 3
  maxFailedTrialCount: 1
  resumePolicy: LongRunning
  parameters:
    - {name: x, parameterType: double, feasibleSpace: {min: "0", max: "1"}}
  trialTemplate:
    primaryContainerName: main
    trialParameters: [{name: x, reference: x}]
    trialSpec:
      apiVersion: batch/v1
      kind: Job
      spec:
        template:
          spec:
            containers:
              - name: main
                image: python:3.12
                command: [sh, -c]
                args: ['SCRIPT']
"""

PRINTS = "echo hello; echo loss=${trialParameters.x}"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Work in an empty folder; returns what runs the command there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(TEXT.replace("SCRIPT", PRINTS))

    def run(*arguments):
        return main(["experiment", *arguments])

    return run


def test_from_a_file_to_the_best_hyperparameters(experiment, capsys):
    assert experiment("run", "one.yaml") == 0
    out, err = capsys.readouterr()
    assert err == "without effect on one machine: the image (this Python's environment is used)\n"
    assert len(re.findall(r"^one-\w{8} is running: x=0\.\d+$", out, re.MULTILINE)) == 3
    assert re.search(
        r"^\[3/3\] one-\w{8} Succeeded, loss 0\.\d+: Trial has succeeded. Job message: .*$", out, re.MULTILINE
    )
    assert "experiment one is Succeeded: Experiment has succeeded because max trial count has reached" in out
    best = float(re.search(r"^  loss: (\S+)$", out, re.MULTILINE)[1])
    assert best == float(re.search(r"^  x = (\S+)$", out, re.MULTILINE)[1])

    assert experiment("list") == 0
    assert re.search(r"^one +Succeeded +3 +3 +0 +20\d\d-", capsys.readouterr().out, re.MULTILINE)

    assert experiment("status", "one") == 0
    out = capsys.readouterr().out
    assert (
        len(
            re.findall(
                r"^one-\w{8}  Succeeded  0\.\d+ +x=0\.\d+ +Trial has succeeded. Job message: .*$", out, re.MULTILINE
            )
        )
        == 3
    )

    assert experiment("status", "one", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    status = found["experiment"]["status"]
    assert status["trialsSucceeded"] == len(found["trials"]) == 3
    assert float(status["currentOptimalTrial"]["observation"]["metrics"][0]["min"]) == best

    assert experiment("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["name"] == "one"

    assert experiment("logs", "one", status["currentOptimalTrial"]["bestTrialName"]) == 0
    assert capsys.readouterr().out == f"hello\nloss={best!r}\n"
    assert experiment("logs", "one", "--follow") == 0
    assert capsys.readouterr().out.startswith("hello\nloss=0.")

    assert experiment("run", "one.yaml") == 1
    assert "an experiment 'one' already exists; resume or delete it" in capsys.readouterr().err

    assert experiment("resume", "one", "--max-trial-count", "4") == 0
    assert "[4/4]" in capsys.readouterr().out

    assert experiment("delete", "one") == 0
    assert experiment("list") == 0
    assert capsys.readouterr().out.count("one") == 1, "the word that it is deleted, and no row"


def test_too_many_failures_are_status_1(experiment, tmp_path, capsys):
    (tmp_path / "one.yaml").write_text(TEXT.replace("SCRIPT", "echo no data; exit 1 # ${trialParameters.x}"))

    assert experiment("run", "one.yaml") == 1
    out = capsys.readouterr().out
    assert "Failed: Trial has failed. Job message: exit status 1; last output: no data" in out
    assert "experiment one is Failed" in out
    assert re.search(r"^trial one-\w{8}: Trial has failed.*\n  no data$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "none.yaml"], 2, "No such file or directory: 'none.yaml'"),
        (["list"], 1, "katib-local holds no experiments (no katib.db); --home names another folder"),
        (["status", "one"], 1, "katib-local holds no experiments"),
        (["resume", "one"], 1, "katib-local holds no experiments"),
        (["delete", "one"], 1, "katib-local holds no experiments"),
    ],
)
def test_what_is_not_there_is_said_in_one_line_and_nothing_is_made(
    experiment, tmp_path, capsys, arguments, status, message
):
    assert experiment(*arguments) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "katib-local").exists()


def test_an_illegal_file_names_its_fields(experiment, tmp_path, capsys):
    (tmp_path / "one.yaml").write_text(TEXT.replace("maxTrialCount", "maxTrials"))

    assert experiment("run", "one.yaml") == 2
    assert "one.yaml: spec.maxTrials: Katib knows no such field; did you mean" in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(experiment, tmp_path):
    program = (
        "import sys; sys.modules['optuna'] = None\n"
        "from katib_callbacks.cli import main; sys.exit(main(['experiment', 'run', 'one.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240
    )

    assert done.returncode == 2
    assert done.stderr == 'katib-callbacks: error: random needs optuna: pip install "katib-callbacks[local]"\n'


def wait_for(path, pattern):
    while not re.search(pattern, path.read_text()):
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_trials_and_resume_goes_on(experiment, tmp_path, capsys, number):
    (tmp_path / "one.yaml").write_text(
        TEXT.replace("SCRIPT", f"test -e $KATIB_CALLBACKS_SUBMIT_DIR/go || exec sleep 600; {PRINTS}")
    )
    output = tmp_path / "output"
    with output.open("w") as file:
        command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", "run", "one.yaml"]
        runner = subprocess.Popen(command, stdout=file, stderr=file, cwd=tmp_path)
    wait_for(output, r"(is running(.|\n)*){3}")
    runner.send_signal(number)

    assert runner.wait() == 130
    assert "stopped; go on with: katib-callbacks experiment resume one --home katib-local" in output.read_text()
    (tmp_path / "go").touch()
    assert experiment("resume", "one") == 0
    assert "[3/3]" in capsys.readouterr().out


def test_an_experiment_that_runs_is_edited_and_stopped_by_another_process(experiment, tmp_path, capsys):
    (tmp_path / "one.yaml").write_text(
        TEXT.replace("SCRIPT", f"test -e $KATIB_CALLBACKS_SUBMIT_DIR/go || exec sleep 600; {PRINTS}")
    )
    output = tmp_path / "output"
    with output.open("w") as file:
        command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", "run", "one.yaml"]
        runner = subprocess.Popen(command, stdout=file, stderr=file, cwd=tmp_path)
    wait_for(output, r"(is running(.|\n)*){2}")

    assert experiment("edit", "one", "--parallel-trial-count", "3", "--max-trial-count", "4") == 0
    wait_for(output, r"(is running(.|\n)*){3}")
    assert experiment("stop", "one") == 0
    assert runner.wait() == 130
    assert "stopped; go on with: katib-callbacks experiment resume one" in capsys.readouterr().out
    assert experiment("stop", "one") == 0
    assert capsys.readouterr().out == "no process runs experiment one\n"
    (tmp_path / "go").touch()
    assert experiment("resume", "one") == 0
    assert "[4/4]" in capsys.readouterr().out


def test_what_is_over_is_edited_and_to_be_resumed(experiment, capsys):
    assert experiment("run", "one.yaml") == 0
    capsys.readouterr()

    assert experiment("edit", "one", "--max-trial-count", "4") == 0
    assert capsys.readouterr().out == "go on with: katib-callbacks experiment resume one --home katib-local\n"
    assert experiment("edit", "one") == 2
    assert "one of the counts must be given" in capsys.readouterr().err


def shown_on_a_terminal(folder, *arguments):
    """Run a command on a terminal of its own; returns its exit status and what it has shown."""
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", *arguments]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdout=secondary, stderr=secondary, cwd=folder, env=environ)
    os.close(secondary)
    chunks = []
    try:
        while chunk := os.read(primary, 65_536):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(primary)
    return process.wait(), b"".join(chunks).decode()


def test_a_terminal_shows_a_live_table(experiment, tmp_path):
    status, shown = shown_on_a_terminal(tmp_path, "run", "one.yaml")

    assert status == 0
    assert "3 of 3 trials: 3 Succeeded" in shown
    assert "best loss 0." in shown
    assert "━" in shown, "a progress bar"
    assert "experiment one is Succeeded" in shown


def test_another_terminal_watches_an_experiment_to_its_end(experiment, tmp_path, capsys):
    waits = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; {PRINTS}"
    (tmp_path / "one.yaml").write_text(TEXT.replace("SCRIPT", waits))
    command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", "run", "one.yaml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        wait_for_trial(tmp_path)
        (tmp_path / "go").touch()
        status, shown = shown_on_a_terminal(tmp_path, "watch", "one")
        assert running.wait() == 0

    assert status == 0
    assert "3 of 3 trials: 3 Succeeded" in shown
    assert "experiment one is Succeeded" in shown

    assert experiment("watch", "one") == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^\[[123]/3\] one-\w{8} Succeeded, loss 0\.\d+: Trial has", out, re.MULTILINE)) == 3
    assert experiment("watch", "other") == 1
    assert "there is no experiment 'other'" in capsys.readouterr().err


def wait_for_trial(folder):
    """Wait until a trial of the experiment ``one`` runs."""
    end_s = time.monotonic() + 60
    while not list((folder / "katib-local" / "one").glob("*.log")):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_watching_what_no_process_runs_says_how_to_go_on(experiment, tmp_path, capsys):
    runner.create(tmp_path / "katib-local", read_file("one.yaml"), folder=tmp_path)

    assert experiment("watch", "one") == 130
    assert "no process runs it; go on with: katib-callbacks experiment resume one" in capsys.readouterr().out


def test_what_has_not_begun_has_a_status_and_nothing_to_show(experiment, tmp_path, capsys):
    runner.create(tmp_path / "katib-local", read_file("one.yaml"), folder=tmp_path)

    assert experiment("status", "one") == 0
    out = capsys.readouterr().out
    assert "no process runs it; go on with: katib-callbacks experiment resume one" in out
    assert experiment("logs", "one") == 1
    assert "experiment 'one' has no trial that has begun" in capsys.readouterr().err
    assert experiment("plot", "one", "-o", "x.gif") == 2
    assert "'x.gif' does not end in .html, .png" in capsys.readouterr().err


def test_an_experiment_that_needs_nothing_else_is_run_without_a_note(experiment, tmp_path, capsys):
    text = TEXT.replace("                image: python:3.12\n", "").replace(
        "SCRIPT", "echo ${trialParameters.x}; exit 1"
    )
    (tmp_path / "one.yaml").write_text(text)

    assert experiment("run", "one.yaml") == 1
    assert "without effect" not in capsys.readouterr().err
    assert experiment("logs", "one", "--plot") == 1
    assert "has reported nothing yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "arguments", "words"),
    [
        ("pandas", ("export", "one", "-o", "x.parquet"), 'needs pandas: pip install "katib-callbacks[data]"'),
        ("plotly", ("plot", "one", "-o", "x.html"), 'needs plotly: pip install "katib-callbacks[plot]"'),
        ("matplotlib", ("plot", "one", "-o", "x.png"), 'needs matplotlib: pip install "katib-callbacks[plot]"'),
    ],
)
def test_a_missing_extra_is_named(experiment, tmp_path, monkeypatch, capsys, missing, arguments, words):
    installed = dict.fromkeys(("pandas", "pyarrow", "plotly", "matplotlib"), ModuleType("installed"))
    for module in installed.values():
        module.__spec__ = ModuleSpec("installed", None)
    for name, module in {**installed, missing: None}.items():  # None: as if it were not there
        monkeypatch.setitem(sys.modules, name, module)
    runner.create(tmp_path / "katib-local", read_file("one.yaml"), folder=tmp_path)

    assert experiment(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / arguments[-1]).exists()


def test_files_of_rows_need_no_extra(experiment, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    runner.create(tmp_path / "katib-local", read_file("one.yaml"), folder=tmp_path)

    assert experiment("export", "one", "-o", "x.csv") == 0
    header = "trial,number,state,reason,message,objective,parameter.x,metric.loss.min,"
    assert (tmp_path / "x.csv").read_text().startswith(header)
    assert experiment("export", "one", "-o", "x.json", "--rows") == 0
    assert json.loads((tmp_path / "x.json").read_text()) == []
    assert experiment("export", "one", "-o", "x.xlsx") == 2


def test_a_trials_curves_are_drawn_in_the_terminal(experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    (tmp_path / "one.yaml").write_text(
        TEXT.replace("SCRIPT", "for loss in 1 ${trialParameters.x} 3; do echo loss=$loss; done")
    )
    assert experiment("run", "one.yaml") == 0
    capsys.readouterr()

    assert experiment("logs", "one", "--plot") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"loss: 3 at last, least 0\.\d+, greatest 3", lines[0])
    assert lines[-1].split() == ["1", "3"]
