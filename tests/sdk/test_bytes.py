"""Our messages are upstream's: the same fields, the same bytes, in one process with them."""

import subprocess
import sys
from datetime import timezone

import kubeflow.katib.katib_api_pb2 as upstream
import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks import MetricLog
from katib_callbacks.metrics import format_timestamp, format_value
from katib_callbacks.wire import messages as ours
from katib_callbacks.wire.encoding import report_request

text = st.text(max_size=300)
logs = st.lists(st.tuples(text, st.none() | st.tuples(text, text)), max_size=20)
OUR_MESSAGES = ours.POOL.FindFileByName("katib_callbacks/katib.proto").message_types_by_name.values()


def observation_log(module, rows):
    """Build the same log of either module's classes; None stands for a metric that is not set."""
    return module.ObservationLog(
        metric_logs=[
            module.MetricLog(time_stamp=time, metric=metric and module.Metric(name=metric[0], value=metric[1]))
            for time, metric in rows
        ]
    )


def assert_same(make):
    """Both modules' messages have the same bytes, and each is read back from the other's."""
    mine, theirs = make(ours), make(upstream)

    assert mine.SerializeToString() == theirs.SerializeToString()
    assert type(mine).FromString(theirs.SerializeToString()) == mine
    assert type(theirs).FromString(mine.SerializeToString()) == theirs


@given(text, logs)
def test_reports_have_the_same_bytes(trial, rows):
    assert_same(
        lambda module: module.ReportObservationLogRequest(
            trial_name=trial, observation_log=observation_log(module, rows)
        )
    )


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255)
metric_logs = st.builds(MetricLog, names, st.floats(), st.datetimes(timezones=st.just(timezone.utc)))


@given(text, st.lists(metric_logs, max_size=20))
def test_what_a_trial_sends_has_the_same_bytes(trial, sent):
    rows = [(format_timestamp(log.timestamp), (log.name, format_value(log.value))) for log in sent]
    theirs = upstream.ReportObservationLogRequest(trial_name=trial, observation_log=observation_log(upstream, rows))

    assert report_request(trial, sent) == theirs.SerializeToString()


@given(text)
def test_reports_without_a_log_have_the_same_bytes(trial):
    assert_same(lambda module: module.ReportObservationLogRequest(trial_name=trial))


@given(logs)
def test_answers_have_the_same_bytes(rows):
    assert_same(lambda module: module.GetObservationLogReply(observation_log=observation_log(module, rows)))


@given(text, text, text, text)
def test_questions_have_the_same_bytes(trial, metric, start, end):
    assert_same(
        lambda module: module.GetObservationLogRequest(
            trial_name=trial, metric_name=metric, start_time=start, end_time=end
        )
    )


@given(text)
def test_deletions_have_the_same_bytes(trial):
    assert_same(lambda module: module.DeleteObservationLogRequest(trial_name=trial))


def fields(descriptor):
    # is_repeated is newer than the oldest protobuf, label is gone from the newest.
    return [
        (field.name, field.number, field.type, field.label, field.message_type and field.message_type.full_name)
        for field in descriptor.fields
    ]


@pytest.mark.parametrize("descriptor", OUR_MESSAGES, ids=lambda descriptor: descriptor.name)
def test_messages_have_upstreams_fields(descriptor):
    theirs = upstream.DESCRIPTOR.message_types_by_name[descriptor.name]

    assert descriptor.full_name == theirs.full_name
    assert fields(descriptor) == fields(theirs)


def test_the_service_is_upstreams():
    (mine,) = ours.POOL.FindFileByName("katib_callbacks/katib.proto").services_by_name.values()
    theirs = upstream.DESCRIPTOR.services_by_name[mine.name]

    assert mine.full_name == theirs.full_name
    assert {(m.name, m.input_type.full_name, m.output_type.full_name) for m in mine.methods} <= {
        (m.name, m.input_type.full_name, m.output_type.full_name) for m in theirs.methods
    }


IMPORTS = ["import katib_callbacks.wire.messages as ours", "import kubeflow.katib.katib_api_pb2 as upstream"]


@pytest.mark.parametrize("imports", [IMPORTS, IMPORTS[::-1]], ids=["ours first", "upstream first"])
def test_both_load_in_one_process_in_either_order(imports):
    code = [*imports, "print(ours.Metric(name='a').name, upstream.Metric(name='b').name)"]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)], capture_output=True, text=True, check=False, timeout=240
    )

    assert result.stdout == "a b\n", result.stderr
