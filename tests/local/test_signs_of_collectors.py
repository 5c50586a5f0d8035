"""Trials whose metrics Katib collects, by the signs that its webhook leaves: shells, descriptors and sidecars."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from katib_callbacks.local.collectors.file import collect_file
from katib_callbacks.local.collectors.stdout import parse_output
from katib_callbacks.metrics import parse_timestamp

NOW = parse_timestamp("2026-01-31T12:00:00Z")
TRIAL = "collected-trial"

SCRIPT = """
import sys
from katib_callbacks import KatibReporter
with KatibReporter(timeout_s=30) as reporter:
    for each in reporter.whereabouts.chosen:
        print(each.sink, "|", each.reason, "|", each.sign, file=sys.stderr)
    reporter.report({"loss": 0.5, "val/acc": 0.25})
    reporter.report({"loss": 0.125})
"""

SHOW = SCRIPT.partition("    reporter.report(")[0]


def command(code):
    return shlex.join([sys.executable, "-c", code])


def wrapped(line, folder, kind="StdOut"):
    """Return a container's command as wrapWorkerContainer leaves it."""
    redirection = f" 1>{folder}/metrics.log 2>&1" if kind == "StdOut" else ""
    return ["sh", "-c", f"{line}{redirection} && echo completed > {folder}/$$.pid"]


def run(arguments, **variables):
    environ = {**os.environ, "KATIB_TRIAL_NAME": TRIAL, "KATIB_DB_MANAGER_ADDRESS": "127.0.0.1:1", **variables}
    return subprocess.run(arguments, env=environ, capture_output=True, text=True, check=True, timeout=240)


@contextmanager
def sidecar(*arguments):
    """Run something that looks as the collector's container does in the pod's process namespace."""
    code = "import sys, time; print(flush=True); time.sleep(120)"
    line = [sys.executable, "-c", code, "-t", TRIAL, "-m", "loss", "-o-type", "minimize", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        try:
            yield
        finally:
            process.kill()


def values(rows):
    return [(row.name, row.value) for row in rows]


# -- StdOut ------------------------------------------------------------------------------------------------------------


def test_a_trial_in_stdout_mode_prints_what_the_collector_reads_and_pushes_nothing(tmp_path):
    run(wrapped(command(SCRIPT), tmp_path))
    log = (tmp_path / "metrics.log").read_text()

    assert "stdout | Katib collects this trial's metrics from its output | a shell above this process ends" in log
    rows = parse_output(log.splitlines(), ["loss", "val_acc"], [], NOW)
    assert values(rows) == [("loss", "0.5"), ("val_acc", "0.25"), ("loss", "0.125")]
    assert rows[0].timestamp < rows[1].timestamp < rows[2].timestamp
    assert "Written are 'val/acc' as 'val_acc'" in log
    assert [path.read_text() for path in tmp_path.glob("*.pid")] == ["completed\n"]


def test_with_early_stopping_the_shell_ends_otherwise(tmp_path):
    mark = f"{tmp_path}/$$.pid"
    stopped = (
        f"if test -f {mark} && [ $(head -n 1 {mark}) = early-stopped ]; then echo Training Container was Early Stopped"
    )
    log = tmp_path / "metrics.log"
    run(["bash", "-c", f"{command(SHOW)} 1>{log} 2>&1 || {stopped}; else exit 1; fi && echo completed > {mark}"])

    assert log.read_text().startswith("stdout | Katib collects this trial's metrics from its output | ")


def test_output_that_a_program_hands_on_comes_to_the_collector(tmp_path):
    run(wrapped(f"{command(SCRIPT)} | cat", tmp_path))

    rows = parse_output((tmp_path / "metrics.log").read_text().splitlines(), ["loss"], [], NOW)
    assert values(rows) == [("loss", "0.5"), ("loss", "0.125")]


def test_output_that_goes_elsewhere_does_not_so_the_rows_are_pushed(tmp_path, katib_db_manager):
    line = f"{command(SCRIPT)} >{tmp_path}/mine.log"
    code = f"import subprocess; subprocess.run({line!r}, shell=True, check=True)"
    variables = {"KATIB_TRIAL_NAME": "test-trial", "KATIB_DB_MANAGER_ADDRESS": katib_db_manager.address}
    run(wrapped(command(code), tmp_path), **variables)

    assert (
        f"katib | Katib collects this trial's metrics from its output, but that of this process goes to {tmp_path}/mine"
        in (tmp_path / "metrics.log").read_text()
    )
    logs = katib_db_manager.metrics()
    assert [(log.name, log.value) for log in logs] == [("loss", "0.5"), ("val/acc", "0.25"), ("loss", "0.125")]


@pytest.fixture
def in_container():
    """Return a function that runs a shell's line where ``/var/log/katib`` is a volume of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("/var/log/katib is made in a mount namespace of its own, which this machine does not allow")
    volume = "mount -t tmpfs none /var/log && mkdir /var/log/katib"
    return lambda line: run([unshare, "-Urm", "sh", "-c", f"{volume} && {line}; exit"])


def test_descriptor_1_tells_by_itself(in_container):
    told = in_container(f"{command(SHOW)} >/var/log/katib/metrics.log").stderr

    assert told.startswith("stdout | ")
    assert told.endswith(" | descriptor 1 is /var/log/katib/metrics.log\n")


def test_a_filter_of_the_experiments_own_is_heeded(tmp_path):
    filters = [r"([\w/|-]+)\s*=\s*(\d+(?:\.\d+)?)"]
    with sidecar("-path", f"{tmp_path}/metrics.log", "-f", *filters, "-format", "TEXT"):
        run(wrapped(command(SCRIPT), tmp_path))

    log = (tmp_path / "metrics.log").read_text()
    assert values(parse_output(log.splitlines(), ["val/acc"], filters, NOW)) == [("val/acc", "0.25")]
    assert "Written are" not in log


def test_a_filter_that_does_not_read_our_lines_is_said(tmp_path):
    with sidecar("-path", f"{tmp_path}/metrics.log", "-f", r"\{metric: (\w+), value: (\S+)\}", "-format", "TEXT"):
        run(wrapped(command(SCRIPT), tmp_path))

    said = [line for line in (tmp_path / "metrics.log").read_text().splitlines() if "cannot read" in line]
    assert len(said) == 1
    assert "cannot read 'loss', 'val/acc' in the lines that are written to stdout: its filter" in said[0]


# -- File --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["TEXT", "JSON"])
def test_a_trial_in_file_mode_writes_the_file_that_the_sidecar_reads(tmp_path, file_format):
    path = tmp_path / "mine" / "accuracy.log"
    with sidecar("-path", str(path), "-format", file_format):
        told = run(wrapped(command(SCRIPT), path.parent, "File")).stderr

    assert told.startswith(
        "metrics-file | Katib collects this trial's metrics from a file | a shell above this process"
    )
    name = "val/acc" if file_format == "JSON" else "val_acc"
    rows = collect_file(path, file_format, ["loss", name], [], NOW)
    assert sorted(values(rows)) == [("loss", "0.125"), ("loss", "0.5"), (name, "0.25")]
    assert ("Written are" in told) == (file_format == "TEXT")


def test_without_a_sidecar_in_sight_the_file_is_katibs_default(in_container):
    container = shlex.join(wrapped(command(SCRIPT), "/var/log/katib", "File"))
    done = in_container(f"{container} && cat /var/log/katib/metrics.log")

    assert done.stderr.startswith("metrics-file | ")
    assert values(parse_output(done.stdout.splitlines(), ["loss"], [], NOW)) == [("loss", "0.5"), ("loss", "0.125")]


def test_without_a_sidecar_in_sight_an_unknown_file_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(wrapped(command(SCRIPT), tmp_path, "File"))

    assert "so its file is not known; name it, as in metrics-file:///var/log/katib/metrics.log" in failed.value.stderr


@pytest.mark.parametrize(
    ("scheme", "line"), [("", r"\S+Z loss=0.5"), ("+json", r'\{"timestamp": "\S+Z", "loss": "0.5"\}')]
)
def test_a_file_can_be_named(tmp_path, scheme, line):
    path = tmp_path / "a b.log"
    run([sys.executable, "-c", SCRIPT], KATIB_CALLBACKS_SINKS=f"metrics-file{scheme}://{tmp_path}/a%20b.log")

    assert re.fullmatch(line, path.read_text().splitlines()[0])


def test_in_json_the_name_of_the_time_cannot_be_read(tmp_path):
    code = "from katib_callbacks import report_metrics; report_metrics({'timestamp': 1.5})"
    sink = f"metrics-file+json://{tmp_path}/metrics.log"

    assert "cannot read 'timestamp'" in run([sys.executable, "-c", code], KATIB_CALLBACKS_SINKS=sink).stderr


# -- other places ------------------------------------------------------------------------------------------------------


def test_event_files_are_not_ours_so_rows_are_pushed(tmp_path):
    with sidecar("-path", str(tmp_path)):
        told = run(wrapped(command(SHOW), tmp_path, "File")).stderr

    assert told.startswith("katib | Katib collects this trial's metrics from files that this package does not write")


def test_in_push_mode_there_is_no_sign(tmp_path):
    told = run(["sh", "-c", f"{command(SHOW)} && echo completed > {tmp_path}/mine"]).stderr

    assert told == f"katib | this is a Katib trial in Push mode | KATIB_TRIAL_NAME={TRIAL}\n"


def test_a_local_collector_is_told_by_its_variable(tmp_path):
    said = {"kind": "File", "path": f"{tmp_path}/x.log", "file_format": "TEXT", "filters": []}
    told = run([sys.executable, "-c", SCRIPT], KATIB_CALLBACKS_LOCAL_COLLECTOR=json.dumps(said)).stderr

    assert told.startswith("metrics-file | ")
    assert "| KATIB_CALLBACKS_LOCAL_COLLECTOR is set\n" in told
    assert values(collect_file(tmp_path / "x.log", "TEXT", ["loss"], [], NOW)) == [("loss", "0.5"), ("loss", "0.125")]
