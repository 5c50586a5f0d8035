"""The collectors for files: JSON lines, and event files as TensorFlow and torch write them."""

import base64
import os
import struct
import time
from datetime import datetime, timedelta, timezone

import pytest
from homes import SUBMITTED, experiment

from katib_callbacks.local.collectors.file import JSON, TEXT, collect_file
from katib_callbacks.local.collectors.tensorflow_event import collect_events
from katib_callbacks.local.running.runner import Runner

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)

# Written by tensorboard 2.20 (tensorboard.summary.Writer): accuracy .5 and .9, then loss .125.
TENSORS = base64.b64decode(
    "SAAAAAAAAAD+kkidCVA7BF8awtpBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50X2ZpbGVfd3JpdGVy"
    "Jq/qoDQAAAAAAAAAXjMXXAkAABBAblXaQRABKicKJQoIYWNjdXJhY3lCCggBEgAqBAAAAD9KDQoJCgdzY2FsYXJzIAF/02HJNAAAAAAAAABeMxdc"
    "CQAAUEBuVdpBEAIqJwolCghhY2N1cmFjeUIKCAESACoEZmZmP0oNCgkKB3NjYWxhcnMgAZey5CkwAAAAAAAAAJX10F8JAABQQG5V2kEQAiojCiEK"
    "BGxvc3NCCggBEgAqBAAAAD5KDQoJCgdzY2FsYXJzIAEkG51C"
)
# Written by torch 2.13 (SummaryWriter.add_scalar): accuracy .9, and with new_style=True new .8.
PLAIN = base64.b64decode(
    "SAAAAAAAAAD+kkidCZmpXWAawtpBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50X2ZpbGVfd3JpdGVy"
    "rdqXqB4AAAAAAAAA2dwSMgkAABBAblXaQRABKhEKDwoIYWNjdXJhY3kVZmZmP2dEDyIrAAAAAAAAAIYbw0sJAAAgQG5V2kEQASoeChwKA25ld0II"
    "CAEqBM3MTD9KCwoJCgdzY2FsYXJzPsHWIw=="
)
NAME = "events.out.tfevents.1767225600.host.1.0"


@pytest.fixture
def events(tmp_path):
    """Write an event file, and collect."""

    def collect(content, *metrics, folder="test"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / NAME).write_bytes(content)
        return [(row.name, row.value, row.timestamp) for row in collect_events(tmp_path, metrics)]

    return collect


def test_tensors_are_read_in_their_own_precision(events):
    quarter = NOW + timedelta(seconds=0.25)

    assert events(TENSORS, "accuracy", "loss") == [
        ("accuracy", "0.5", quarter),
        ("accuracy", "0.9", quarter + timedelta(seconds=1)),
        ("loss", "0.125", quarter + timedelta(seconds=1)),
    ]


@pytest.mark.parametrize(("folder", "count"), [("test", 2), ("train", 0)])
def test_a_name_may_say_in_which_folder(events, folder, count):
    assert [name for name, _, _ in events(TENSORS, "test/accuracy", folder=folder)] == ["test/accuracy"] * count


def test_a_tag_need_only_begin_with_the_name(events):
    assert [value for _, value, _ in events(TENSORS, "acc")] == ["0.5", "0.9"]


def test_plain_numbers_of_torch_are_left_out_as_in_katib_and_said(events, caplog):
    assert [(name, value) for name, value, _ in events(PLAIN, "accuracy", "new")] == [("new", "0.8")]
    assert "accuracy stands in the event files as a plain number, which Katib's collector does not read" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("length", [len(TENSORS) - 1, len(TENSORS) - 20, 130, 92, 5, 0])
def test_what_was_written_before_the_writer_was_killed_counts(events, length, caplog):
    found = events(TENSORS[:length], "accuracy")

    assert [value for _, value, _ in found] == ["0.5", "0.9"][: {130: 0, 92: 0, 5: 0, 0: 0}.get(length, 2)]
    assert caplog.records == []


def test_a_damaged_file_is_named(events, caplog):
    events(b"\xff" * 60, "accuracy")

    assert f"{NAME} is damaged, and read no further: a record of 18446744073709551615 bytes" in caplog.text


@pytest.mark.parametrize(
    "event",
    [b"\x28\x07", b"\x08\x07", b"\x2a\x04\x0a\x02\x08\x03"],
    ids=["a number for a summary", "a number for a time", "a number for a tag"],
)
def test_an_event_of_other_fields_is_passed_over_as_by_tensorflow(events, event, caplog):
    found = events(struct.pack("<Q4x", len(event)) + event + b"\0" * 4 + TENSORS, "accuracy")

    assert [value for _, value, _ in found] == ["0.5", "0.9"]
    assert caplog.records == []


def test_an_event_that_is_cut_off_is_damage_too(events, caplog):
    event = b"\x2a\x04\x0a"
    assert events(TENSORS + struct.pack("<Q4x", len(event)) + event + b"\0" * 4, "accuracy")

    assert "is damaged, and read no further" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / NAME)

    assert collect_events(tmp_path, ["a"]) == []
    assert collect_file(tmp_path / NAME, TEXT, ["a"], [], NOW) == []
    assert collect_file(tmp_path, JSON, ["a"], [], NOW) == []


@pytest.mark.parametrize("at", range(72, len(TENSORS), 7))
def test_damage_anywhere_raises_nothing(events, at):
    events(TENSORS[:at] + bytes([TENSORS[at] ^ 0xFF]) + TENSORS[at + 1 :], "accuracy", "loss")


@pytest.fixture
def file(tmp_path):
    """Write a metrics file, and collect."""

    def collect(text, file_format=JSON):
        path = tmp_path / "metrics"
        path.write_text(text)
        return [
            (row.name, row.value, (row.timestamp - NOW) / timedelta(microseconds=1))
            for row in collect_file(path, file_format, ["loss", "accuracy"], [], NOW)
        ]

    return collect


def test_lines_of_json_are_read(file):
    text = '{"loss": "0.5", "accuracy": "0.7", "epoch": 1}\n\n{"loss": "0.25"}\n{"loss": "nought"}\n'

    assert file(text) == [("loss", "0.5", 0), ("accuracy", "0.7", 1), ("loss", "0.25", 2)]


@pytest.mark.parametrize(
    ("timestamp", "microseconds"),
    [
        ('"2026-01-01T00:00:01Z"', 1e6),
        ("1767225601.5", 1.5e6),
        ("1767225601", 1e6),
        ('"yesterday"', 0),
        ("null", 0),
        ("1e300", 0),
    ],
)
def test_a_line_of_json_may_have_a_time(file, timestamp, microseconds):
    assert file(f'{{"timestamp": {timestamp}, "loss": "0.5"}}') == [("loss", "0.5", microseconds)]


def test_numbers_in_json_are_left_out_as_in_katib_and_said(file, caplog):
    assert file('{"loss": 0.5, "accuracy": "0.7"}') == [("accuracy", "0.7", 0)]
    assert 'loss is a number in the metrics file; Katib reads strings only: {"loss": "0.5"}' in caplog.text


@pytest.mark.parametrize("line", ["loss=0.5", "[1]", "{", "[" * 100_000])
def test_a_line_that_is_no_object_leaves_nothing_as_in_katib(file, line, caplog):
    assert file(f'{{"loss": "0.5"}}\n{line}\n') == []
    assert "line 2 of the metrics file is not a JSON object" in caplog.text


def test_lines_of_text_are_read_as_output_is(file):
    text = "2026-01-01T00:00:01Z loss=0.5\nloss = 0.25, accuracy=1e-1\n"

    assert file(text, TEXT) == [("loss", "0.5", 1e6), ("loss", "0.25", 0), ("accuracy", "1e-1", 1)]


def test_without_a_file_there_are_no_rows(tmp_path):
    assert collect_file(tmp_path / "none", JSON, ["loss"], [], NOW) == []
    assert collect_events(tmp_path / "none", ["loss"]) == []


WRITES = """
import base64, pathlib
folder = pathlib.Path("/events/run/test")
folder.mkdir(parents=True)
(folder / "{name}").write_bytes(base64.b64decode("{content}"))
"""


def test_an_experiment_collects_event_files(local):
    code = WRITES.format(name=NAME, content=base64.b64encode(TENSORS).decode())
    one = experiment(
        code,
        objective={"type": "maximize", "objectiveMetricName": "test/accuracy"},
        metricsCollectorSpec={
            "collector": {"kind": "TensorFlowEvent"},
            "source": {"fileSystemPath": {"kind": "Directory", "path": "/events/run"}},
        },
    )
    status = local.run(one).status

    assert status.trials_succeeded == 3
    assert [local.rows(trial.name) for trial in local.trials()] == [
        [("test/accuracy", "0.5"), ("test/accuracy", "0.9")]
    ] * 3


def test_a_trial_without_a_metrics_file_is_unavailable(local):
    one = experiment(
        "pass", maxTrialCount=2, parallelTrialCount=1, metricsCollectorSpec={"collector": {"kind": "File"}}
    )

    assert local.run(one).status.trial_metrics_unavailable == 2


def test_what_a_stopped_attempt_has_written_does_not_count(local):
    code = f"""{SUBMITTED}
metrics = pathlib.Path("/train/m.log")
metrics.write_text((metrics.read_text() if metrics.exists() else "") + "loss=1\\n")
while not (submitted / "go").exists(): time.sleep(0.02)
metrics.write_text(metrics.read_text() + "loss=2\\n")
"""
    source = {"fileSystemPath": {"kind": "File", "path": "/train/m.log"}}
    one = experiment(
        code,
        maxTrialCount=1,
        parallelTrialCount=1,
        metricsCollectorSpec={"collector": {"kind": "File"}, "source": source},
    )
    runner = Runner(local.home, local.store(one))
    runner.start()
    while not list(local.home.rglob("m.log")):
        time.sleep(0.05)
    runner.stop()
    (local.folder / "go").touch()

    assert local.resume().status.trials_succeeded == 1
    assert local.rows(local.trials()[0].name) == [("loss", "1"), ("loss", "2")]
