"""A command whose metrics are collected runs as Katib's webhook writes it: as one string for a shell, unquoted."""

import sys

import pytest
from homes import experiment

STDOUT = {"collector": {"kind": "StdOut"}}


def container_of(one):
    return one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]


def run(local, *command, args=(), collector=STDOUT):
    one = experiment(maxTrialCount=1, parallelTrialCount=1, metricsCollectorSpec=collector)
    container_of(one).update(command=list(command), args=list(args))
    local.run(one)
    (trial,) = local.trials()
    return trial, list(local.queries.get_job_logs("one", trial.name))


def test_an_argument_with_a_blank_becomes_two(local):
    (local.folder / "main.py").write_text("import sys; print('loss=' + str(len(sys.argv) - 1))")

    trial, _ = run(local, "python3", "main.py", "one two", args=["three"])

    assert trial.value == 3


@pytest.mark.parametrize("argument", ["it's", "f(x)", "a;b=$(", '"'])
def test_an_argument_that_a_shell_reads_otherwise_breaks_the_command(local, argument):
    (local.folder / "main.py").write_text("print('loss=1')")

    trial, _ = run(local, "python3", "main.py", argument)

    assert trial.state == "Failed"
    assert "last output: " in trial.conditions[-1]["message"], "what the shell said"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_of_several_commands_the_last_one_is_collected(local, shell):
    trial, lines = run(local, shell, "-c", args=["echo loss=1; echo loss=2"])

    assert local.rows(trial.name) == [("loss", "2")]
    assert lines == ["loss=1", "loss=2"]
    assert (local.home / "one" / f"{trial.name}.shell.log").read_text() == "loss=1\n"


def test_a_string_that_ends_with_a_line_end_is_collected_here_and_a_cluster_spoken_of(local, caplog):
    trial, _ = run(local, "sh", "-c", args=["echo loss=1\n"])

    assert local.rows(trial.name) == [("loss", "1")]
    assert "the command ends with an end of line: on a cluster nothing of its output is collected" in caplog.text


def test_a_file_that_is_found_elsewhere_may_have_a_blank_in_its_path(local, tmp_path):
    local.folder = tmp_path / "my work"
    local.folder.mkdir()
    (local.folder / "main.py").write_text("print('loss=1')")

    trial, _ = run(local, "python3", "main.py")

    assert trial.value == 1


def test_what_pushes_runs_as_it_stands(local):
    code = "import sys; from katib_callbacks import report_metrics; report_metrics({'loss': len(sys.argv[1])})"
    trial, _ = run(local, sys.executable, "-c", code, "it's (", collector={"collector": {"kind": "Push"}})

    assert trial.value == 6
