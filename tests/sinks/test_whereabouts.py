"""Where reports go, and why, by the signs that are really there."""

import pytest

from katib_callbacks import KatibReporter
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.auto import ChosenSink

URL = "KUBEFLOW_TRAINER_SERVER_URL"


def reporter_with(*, sinks=None, **variables):
    return KatibReporter(sinks=sinks, _runtime=Runtime(environ=lambda: variables))


def test_each_sink_has_its_reason_and_its_sign():
    where = reporter_with(KATIB_TRIAL_NAME="trial", KUBEFLOW_TRAINER_SERVER_URL="https://localhost/status").whereabouts

    assert where.chosen == (
        ChosenSink("katib", "this is a Katib trial in Push mode", "KATIB_TRIAL_NAME=trial"),
        ChosenSink("trainjob", "this is a TrainJob that shows its status", f"{URL} is set"),
    )
    assert where.nothing is None


def test_a_named_sink_has_the_place_where_it_is_named():
    where = reporter_with(KATIB_TRIAL_NAME="trial", KATIB_CALLBACKS_SINKS="stdout,trainjob").whereabouts

    assert where.chosen == (ChosenSink("stdout", "it is named", "KATIB_CALLBACKS_SINKS has stdout"),)


def test_a_status_server_that_no_sink_is_named_for_is_said():
    with reporter_with(sinks=["katib"], KUBEFLOW_TRAINER_SERVER_URL="https://localhost/status") as reporter:
        assert reporter.whereabouts.nothing == "KATIB_TRIAL_NAME is not set"
        assert f"{URL} is set: name the sink 'trainjob'" in reporter.whereabouts.why_nothing(None)
        with pytest.raises(ConfigurationError, match=f"{URL} is set: name the sink 'trainjob'"):
            reporter.report({"loss": 1.0})


def test_a_status_server_that_cannot_be_right_is_said():
    with reporter_with(KUBEFLOW_TRAINER_SERVER_URL="ftp://host/x") as reporter:
        assert f"will not be shown: {URL} must be a URL" in reporter.whereabouts.why_nothing(None)


def test_a_reporter_is_turned_off_with_all_the_rest(katib_db_manager):
    variables = {"KATIB_CALLBACKS_DISABLE": "1", "KATIB_TRIAL_NAME": "test-trial", "KATIB_CALLBACKS_SINKS": "nonsense"}
    with reporter_with(**variables) as reporter:
        receipt = reporter.report({"loss": 1.0})

    assert (receipt.delivered, receipt.skipped) == (0, "KATIB_CALLBACKS_DISABLE is set")
    assert katib_db_manager.latest() == {}


def test_what_a_reporter_that_is_turned_off_was_given_is_not_looked_at():
    runtime = Runtime(environ=lambda: {"KATIB_CALLBACKS_DISABLE": "1"})
    with KatibReporter(trial_name="trial", tls_ca="/nowhere/ca.crt", sinks=["pigeon://loft"], _runtime=runtime) as one:
        assert one.report({"loss": 1.0}).skipped == "KATIB_CALLBACKS_DISABLE is set"
