"""The callback's arguments."""

import pickle

import pytest

from katib_callbacks.recording.callback import ReportingCallback


class KatibReportCallback(ReportingCallback):
    """Of a framework that asks for nothing."""


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (
            (),
            {"metric": "loss"},
            r"^KatibReportCallback\(\) got an unexpected keyword argument 'metric'; did you mean 'metrics'\?$",
        ),
        (("loss",), {"xyz": 1}, r"^KatibReportCallback\(\) got an unexpected keyword argument 'xyz'$"),
        (("loss", "best"), {}, r"^KatibReportCallback\(\) too many positional arguments$"),
        (("loss",), {"metrics": "acc"}, r"^KatibReportCallback\(\) multiple values for argument 'metrics'$"),
    ],
)
def test_a_wrong_call_blames_the_class_that_the_user_knows(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        KatibReportCallback(*args, **kwargs)


def test_a_subclass_may_have_arguments_of_its_own():
    class Own(KatibReportCallback):
        def __init__(self, metric):
            super().__init__(metric)

    assert "loss" in repr(Own(metric="loss")._recorder)


def test_a_callback_is_made_without_arguments_where_it_is_unpickled():
    restored = pickle.loads(pickle.dumps(KatibReportCallback("loss")))  # noqa: S301  our own bytes

    assert "loss" in repr(restored._recorder)
