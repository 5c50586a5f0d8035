"""Options: the argument, then the variable, then the default; and errors that name where a bad one came from."""

import dataclasses
import os
import pickle
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

from katib_callbacks import ConfigurationError, KatibReporter, settings
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime
from katib_callbacks.settings.early_stopping import parse_policy
from katib_callbacks.settings.metric_names import metric_selection


def runtime(**environ):
    return Runtime(environ=lambda: environ)


LITERALS = {
    "REPORT": settings.Report,
    "MODE": settings.Mode,
    "AFTER_TRAINING": settings.AfterTraining,
    "ON_MISSING": settings.OnMissing,
    "ON_NAN": settings.OnNan,
    "ON_ERROR": settings.OnError,
    "PREVIOUS_ATTEMPT": settings.PreviousAttempt,
    "VERIFY": settings.Verify,
}
EVERY_WORD = [(name, literal, word) for name, literal in LITERALS.items() for word in get_args(literal)]


def choose(name, literal, value, runtime, default="the default"):
    return settings.choice(literal, name.lower(), value, getattr(settings, name), default, runtime)


@pytest.mark.parametrize(("name", "literal", "word"), EVERY_WORD)
def test_every_word_may_be_an_argument_or_a_variable(name, literal, word):
    assert choose(name, literal, word, runtime()) == word
    assert choose(name, literal, None, runtime(**{f"KATIB_CALLBACKS_{name}": word})) == word


def test_an_argument_wins_over_the_variable_and_that_over_the_default():
    environ = runtime(KATIB_CALLBACKS_ON_NAN="send")

    assert choose("ON_NAN", settings.OnNan, "raise", environ) == "raise"
    assert choose("ON_NAN", settings.OnNan, None, environ) == "send"
    assert choose("ON_NAN", settings.OnNan, None, runtime()) == "the default"


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(empty):
    assert runtime(X=empty).variable("X") is None
    assert choose("REPORT", settings.Report, None, runtime(KATIB_CALLBACKS_REPORT=empty)) == "the default"
    assert settings.text(None, "X", runtime(X=empty)) is None
    assert settings.flag("x", None, "X", runtime(X=empty)) is False
    assert settings.seconds("x", None, "X", 480.0, runtime(X=empty)) == 480.0
    assert metric_selection(None, runtime(KATIB_CALLBACKS_METRICS=empty)) is None


def test_variables_lose_their_blanks():
    assert runtime(KATIB_CALLBACKS_REPORT=" best\n").variable(settings.REPORT) == "best"


def test_a_word_that_is_not_known_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"^on_nan must be one of 'skip', 'raise', 'send', not 'drop'$"):
        choose("ON_NAN", settings.OnNan, "drop", runtime())
    with pytest.raises(ConfigurationError, match=r"^KATIB_CALLBACKS_ON_NAN must be one of .*, not 'Skip'$"):
        choose("ON_NAN", settings.OnNan, None, runtime(KATIB_CALLBACKS_ON_NAN="Skip"))
    with pytest.raises(ConfigurationError, match=r"^on_nan must be one of .*, not \['skip'\]$"):
        choose("ON_NAN", settings.OnNan, ["skip"], runtime())


def test_an_argument_that_is_good_hides_a_bad_variable():
    assert choose("REPORT", settings.Report, "best", runtime(KATIB_CALLBACKS_REPORT="nonsense")) == "best"


def test_texts_and_paths():
    assert settings.text("given", "X", runtime(X="from the variable")) == "given"
    assert settings.text(Path("a", "b"), "X", runtime()) == str(Path("a", "b"))
    assert settings.text(None, "X", runtime(X="from the variable")) == "from the variable"


@pytest.mark.parametrize("empty", ["", " ", Path(" ")])
def test_an_empty_argument_is_refused_even_where_a_variable_is_set(empty):
    with pytest.raises(ConfigurationError, match=r"^spool_dir is an empty text; leave it out, or pass None, to use KA"):
        settings.text(empty, settings.SPOOL_DIR, runtime(KATIB_CALLBACKS_SPOOL_DIR="/spool"))


@pytest.mark.parametrize(("value", "complaint"), [(b"x", "not b'x'"), (3, "not 3"), ("a\0b", "NUL")])
def test_what_is_no_text_and_no_path_is_refused_at_once(value, complaint):
    with pytest.raises(ConfigurationError, match=f"^spool_dir .*{complaint}"):
        settings.text(value, settings.SPOOL_DIR, runtime())


@pytest.mark.parametrize(
    ("word", "value"),
    [("1", True), ("true", True), ("Yes", True), ("ON", True), ("0", False), ("False", False), ("no", False)],
)
def test_flags_are_read_from_words(word, value):
    assert settings.flag("x", None, "X", runtime(X=word)) is value


def test_a_flag_given_wins_over_its_variable():
    assert settings.flag("x", False, "X", runtime(X="1")) is False
    assert settings.flag("x", True, "X", runtime(X="nonsense")) is True


def test_flags_refuse_other_words_and_values():
    with pytest.raises(ConfigurationError, match=r"^X must be 1 or 0 .*, not 'maybe'$"):
        settings.flag("x", None, "X", runtime(X="maybe"))
    with pytest.raises(ConfigurationError, match=r"^x must be True or False, not 'yes'$"):
        settings.flag("x", "yes", "X", runtime())
    with pytest.raises(ConfigurationError, match=r"^x must be True or False, not 1$"):
        settings.flag("x", 1, "X", runtime())


def test_disabled_is_a_flag_of_the_environment():
    assert settings.is_disabled(runtime(KATIB_CALLBACKS_DISABLE="1"))
    assert not settings.is_disabled(runtime(KATIB_CALLBACKS_DISABLE="0"))
    assert not settings.is_disabled(runtime())


def test_autolog_is_a_flag_of_the_environment():
    assert settings.is_autolog_on(runtime(KATIB_CALLBACKS_AUTOLOG="1"))
    assert not settings.is_autolog_on(runtime(KATIB_CALLBACKS_AUTOLOG="0"))
    assert not settings.is_autolog_on(runtime())
    with pytest.raises(ConfigurationError, match=r"^KATIB_CALLBACKS_AUTOLOG must be 1 or 0 .*, not 'all'$"):
        settings.is_autolog_on(runtime(KATIB_CALLBACKS_AUTOLOG="all"))


def test_seconds_come_from_the_argument_the_variable_or_the_default():
    assert settings.seconds("timeout_s", 5, "X", 480.0, runtime(X="7")) == 5.0
    assert settings.seconds("timeout_s", None, "X", 480.0, runtime(X="7.5")) == 7.5
    assert settings.seconds("timeout_s", None, "X", 480.0, runtime()) == 480.0
    assert settings.seconds("timeout_s", 1e300, "X", 480.0, runtime()) == settings.LONGEST_S


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "soon", True, [1]])
def test_seconds_must_be_positive_and_finite(bad):
    with pytest.raises(ConfigurationError, match=r"^timeout_s must be a positive number of seconds, not "):
        settings.seconds("timeout_s", bad, "X", 480.0, runtime())


@pytest.mark.parametrize("bad", ["0", "-1", "nan", "inf", "soon", "5s"])
def test_seconds_that_are_wrong_name_their_variable(bad):
    with pytest.raises(ConfigurationError, match=rf"^X must be a positive number of seconds, not '{bad}'$"):
        settings.seconds("timeout_s", None, "X", 480.0, runtime(X=bad))


@pytest.mark.parametrize(
    ("given", "selection"),
    [
        (None, None),
        ("val_acc", {"val_acc": "val_acc"}),
        (["val_acc", "val/loss"], {"val_acc": "val_acc", "val/loss": "val/loss"}),
        (("val_acc",), {"val_acc": "val_acc"}),
        ({"accuracy": "val_acc"}, {"accuracy": "val_acc"}),
        (OrderedDict(b="x", a="x"), {"b": "x", "a": "x"}),
    ],
)
def test_metrics_are_selected_by_an_argument(given, selection):
    assert metric_selection(given, runtime()) == selection


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("val_acc", {"val_acc": "val_acc"}),
        ("val_acc,val_loss", {"val_acc": "val_acc", "val_loss": "val_loss"}),
        ("accuracy=val_acc, loss = val_loss", {"accuracy": "val_acc", "loss": "val_loss"}),
        ("a=b=c", {"a": "b=c"}),
        ('f1="F1(average=macro, k=5)"', {"f1": "F1(average=macro, k=5)"}),
        ('loss, "a=b, c" = "d,e" , f=g(h)', {"loss": "loss", "a=b, c": "d,e", "f": "g(h)"}),
        ('" padded "', {" padded ": " padded "}),
    ],
)
def test_metrics_are_selected_by_a_variable(text, selection):
    assert metric_selection(None, runtime(KATIB_CALLBACKS_METRICS=text)) == selection


def test_metrics_given_win_over_the_variable():
    assert metric_selection("mine", runtime(KATIB_CALLBACKS_METRICS="theirs,")) == {"mine": "mine"}


def test_the_order_of_metrics_is_kept():
    assert list(metric_selection(["b", "c", "a"], runtime())) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "metrics names no metric"),
        ({}, "metrics names no metric"),
        ("", "metrics: a metric's name must be a non-empty str, not ''"),
        (["a", ""], "metrics: a metric's name must be a non-empty str, not ''"),
        (["a", 1], "metrics: a metric's name must be a non-empty str, not 1"),
        ({"a": None}, "metrics: a metric's name must be a non-empty str, not None"),
        ({1: "a"}, "metrics: a metric's name must be a non-empty str, not 1"),
        (b"ab", "metrics: a metric's name must be a non-empty str"),
        (["a", "a"], "metrics: 'a' is named twice"),
        (7, "metrics must be a name, several or a mapping, not 7"),
        (True, "metrics must be a name, several or a mapping, not True"),
    ],
)
def test_a_selection_that_cannot_be_right_is_an_error(given, complaint):
    with pytest.raises(ConfigurationError, match=f"^{re.escape(complaint)}"):
        metric_selection(given, runtime())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,", "a metric's name must be a non-empty str, not ''"),
        ("=b", "a metric's name must be a non-empty str, not ''"),
        ("a=", "a metric's name must be a non-empty str, not ''"),
        ("a=x,a=y", "'a' is named twice"),
        ('""', "a metric's name must be a non-empty str, not ''"),
        ("f1=F1(average=macro, k=5)", "it is unclear where the names end in 'f1=F1(average=macro, k=5)'. Put a name"),
        ("loss,F1(k=5)", "it is unclear where the names end in 'F1(k=5)'. Put a name that has a comma or an equals"),
        ("loss,top{1,5}", "it is unclear where the names end in 'top{1,5}'"),
        ('a="b', "it is unclear where the names end in 'a=\"b'"),
        ('a="b"c', "it is unclear where the names end in 'a=\"b\"c'"),
    ],
)
def test_a_selection_that_is_wrong_names_its_variable(text, complaint):
    with pytest.raises(ConfigurationError, match=f"^KATIB_CALLBACKS_METRICS: {re.escape(complaint)}"):
        metric_selection(None, runtime(KATIB_CALLBACKS_METRICS=text))


def test_a_variable_that_nothing_reads_is_named_once_with_the_nearest(caplog):
    environ = runtime(
        KATIB_CALLBACKS_REPROT="best", KATIB_CALLBACKS_XYZZY="1", KATIB_CALLBACKS_REPORT="best", KATIB_TRIAL="trial"
    )
    settings.warn_of_unknown_variables(environ)
    settings.warn_of_unknown_variables(environ)

    ineffective = "is not a variable of katib-callbacks, so it has no effect."
    assert [record.getMessage() for record in caplog.records] == [
        f"KATIB_CALLBACKS_REPROT {ineffective} Did you mean KATIB_CALLBACKS_REPORT?",
        f"KATIB_CALLBACKS_XYZZY {ineffective}",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize(("rank", "times"), [("0", 1), ("1", 0)])
def test_rank_zero_names_an_unknown_variable_once_in_its_process(rank, times):
    code = "import katib_callbacks as k; k.KatibReporter(); k.KatibReporter()"
    environ = {**os.environ, "KATIB_CALLBACKS_SPOOLDIR": "/spool", "RANK": rank, "WORLD_SIZE": "2"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240, env=environ
    )

    assert result.stderr.count("KATIB_CALLBACKS_SPOOLDIR is not a variable of katib-callbacks") == times


@pytest.mark.parametrize(
    ("environ", "is_conspicuous"),
    [
        ({}, False),
        ({"PATH": "/bin", "KATIB_TRIAL_NAME": ""}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"KATIB_DB_MANAGER_ADDRESS": "localhost:6789"}, True),
        ({"KATIB_CALLBACKS_SINKS": "stdout"}, True),
        ({"KATIB_CALLBACKS_SINKS": ""}, False),
        ({"KATIB_DB_MANAGER_PORT": "tcp://10.0.0.1:6789"}, False),
    ],
)
def test_where_somebody_expects_reports(environ, is_conspicuous):
    assert settings.is_conspicuous(runtime(**environ)) is is_conspicuous


@pytest.mark.parametrize("word", ["-1", "first", "1.0", "9" * 21])
def test_a_rank_that_is_none_is_refused_when_the_reporter_is_made(word):
    with pytest.raises(ConfigurationError, match=f"KATIB_CALLBACKS_RANK must be a whole number, .*, not '{word}'"):
        KatibReporter(_runtime=runtime(KATIB_CALLBACKS_RANK=word))


@pytest.mark.parametrize(("word", "skipped"), [("0", None), (" 3 ", "rank 3 (KATIB_CALLBACKS_RANK="), ("", None)])
def test_a_rank_is_heeded_and_an_empty_variable_is_none(word, skipped):
    with KatibReporter(trial_name="trial", sinks=["stdout"], _runtime=runtime(KATIB_CALLBACKS_RANK=word)) as reporter:
        receipt = reporter.report({"loss": 1})
    if skipped is None:
        assert receipt.skipped is None
        assert receipt.delivered == 1
    else:
        assert skipped in receipt.skipped
        assert receipt.delivered == 0


def test_the_default_runtime_is_this_process(monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial-1")
    signal = threading.Event()
    signal.set()

    assert DEFAULT_RUNTIME.variable(settings.TRIAL_NAME) == "trial-1"
    assert DEFAULT_RUNTIME.now().utcoffset() == timedelta(0)
    assert DEFAULT_RUNTIME.monotonic() <= DEFAULT_RUNTIME.monotonic()
    assert DEFAULT_RUNTIME.wait(signal, 600.0)
    assert not DEFAULT_RUNTIME.wait(threading.Event(), 0.001)
    assert 1.0 <= DEFAULT_RUNTIME.uniform(1.0, 2.0) <= 2.0


def test_the_default_runtime_travels_to_other_processes():
    restored = pickle.loads(pickle.dumps(DEFAULT_RUNTIME))  # noqa: S301  our own bytes

    assert restored.environ is settings.runtime.process_environment
    assert {field.name: getattr(restored, field.name) for field in dataclasses.fields(Runtime)}.keys() == {
        "environ",
        "monotonic",
        "now",
        "wait",
        "uniform",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("median", "'median' is not known; known: "),
        ("medianstop,start_step", "write each option once, as option=value, not 'start_step'"),
        ("medianstop,start_step=4,start_step=5", "write each option once, as option=value, not 'start_step=5'"),
        ("medianstop,rungs=4", "medianstop has no 'rungs'; it has "),
        ("medianstop,start_step=many", "start_step must be a whole number, "),
        ("medianstop,start_step=4000000000", "start_step must be a whole number, "),
        ("medianstop,type=most", "type must be minimize or maximize, not 'most'"),
        ("medianstop,objective=", "objective must be the name of a metric, not ''"),
        ('medianstop,objective="a', "a double quote is not closed in "),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=f"^EARLY: {re.escape(message)}"):
        parse_policy("EARLY", text)


@pytest.mark.parametrize("text", ["asha,reduction_factor=3", 'medianstop,start_step=4,objective="a,b",type=maximize'])
def test_a_policys_text_is_read_as_the_same_policy(text):
    policy = parse_policy("EARLY", text)

    assert parse_policy("EARLY", policy.text) == policy


def test_every_variable_has_the_name_that_the_design_fixes():
    names = {value for name, value in vars(settings).items() if name.isupper() and isinstance(value, str)}

    assert {name for name in names if name.startswith("KATIB_")} == {
        "KATIB_TRIAL_NAME",
        "KATIB_DB_MANAGER_ADDRESS",
        "KATIB_CALLBACKS_",
        *(f"KATIB_CALLBACKS_{name}" for name in LITERALS),
        *(
            f"KATIB_CALLBACKS_{name}"
            for name in (
                "METRICS",
                "MONITOR",
                "TIMEOUT_S",
                "TLS_CA",
                "TLS_CERT",
                "TLS_KEY",
                "TOKEN_PATH",
                "ALLOW_INSECURE_TOKEN",
                "SPOOL_DIR",
                "SINKS",
                "RANK",
                "NAMESPACE",
                "EARLY_STOPPING",
                "EXPERIMENT",
                "AUTOLOG",
                "DISABLE",
                "LOCAL_ATTEMPT",
                "LOCAL_COLLECTOR",
                "LOCAL_PROGRESS",
                "SUBMIT_DIR",
                "TERMINATION_MESSAGE_PATH",
            )
        ),
    }
