"""autolog where no framework is needed: arguments, the environment, Lightning's factories, and what is loaded."""

import importlib.metadata
import inspect
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import katib_callbacks
from katib_callbacks import ConfigurationError, MetricValueError, _autolog, settings
from katib_callbacks._autolog import CallbackArguments, lightning_callbacks
from katib_callbacks._autolog.ownership import Ownership, is_explicit
from katib_callbacks.recording.callback import ReportingCallback

GROUPS = ["lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory"]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("KATIB_") or name == "KUBERNETES_SERVICE_HOST":
            monkeypatch.delenv(name)


def run(code, *, blocked=(), **variables):
    """Run ``code`` in a fresh process in which some packages are not installed; return what it prints."""
    script = f"""
import sys
class WithoutSome:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        is_blocked = name.partition(".")[0] in {set(blocked)!r}
        return None if is_blocked else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(WithoutSome, sys.meta_path)
{code}
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KATIB_")}
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environ | variables,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


# -- arguments -------------------------------------------------------------------------------------------------------


def test_its_arguments_are_the_callbacks():
    parameters = list(inspect.signature(ReportingCallback.__init__).parameters)

    assert list(CallbackArguments.__annotations__) == parameters[1:]


def test_it_is_the_packages():
    assert katib_callbacks.autolog is _autolog.autolog
    assert str(inspect.signature(katib_callbacks.autolog)).startswith("(*, disable: bool = False, **callback_arguments")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"report": "last"}, r"^report must be one of 'final', 'best', 'history', 'kept', not 'last'$"),
        ({"report": "best"}, r"needs monitor"),
        ({"report": "best", "monitor": "val_acc"}, r"needs mode"),
        ({"monitor": "val_acc"}, r"belong to report='best'"),
        ({"on_nan": "drop"}, r"^on_nan must be"),
        ({"metrics": []}, r"names no metric"),
        ({"metrics": 3}, r"^metrics must be"),
        ({"metric": "val_acc"}, r"^autolog has no argument 'metric', only disable, metrics, report, monitor, mode, "),
        ({"_runtime": None}, r"^autolog has no argument '_runtime'"),
        ({"disable": "yes"}, r"^disable must be True or False, not 'yes'$"),
        ({"disable": True, "metric": "val_acc"}, r"^autolog has no argument 'metric'.*; did you mean 'metrics'\?$"),
    ],
)
def test_bad_arguments_are_refused_at_once_and_change_nothing(autolog, monkeypatch, arguments, message):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    before = list(sys.meta_path)

    with pytest.raises(ConfigurationError, match=message):
        autolog(**arguments)

    assert sys.meta_path == before
    assert lightning_callbacks() == []


def test_a_name_that_katib_cannot_store_is_refused(autolog):
    with pytest.raises(MetricValueError):
        autolog(metrics="a\0b")


def test_a_bad_variable_is_refused_at_once(autolog, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_ON_NAN", "drop")

    with pytest.raises(ConfigurationError, match=r"^KATIB_CALLBACKS_ON_NAN must be"):
        autolog()
    autolog(disable=True)


def test_a_bad_call_leaves_the_good_one_before_on(autolog):
    autolog(metrics="loss")
    hooked = list(sys.meta_path)

    with pytest.raises(ConfigurationError):
        autolog(report="last")

    assert sys.meta_path == hooked


def test_arguments_are_checked_outside_a_trial_and_where_it_is_disabled(autolog, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")

    with pytest.raises(ConfigurationError):
        autolog(report="last")


# -- the import hook ---------------------------------------------------------------------------------------------------


def test_twice_hooks_once(autolog):
    before = len(sys.meta_path)
    autolog()
    autolog(metrics="loss")

    assert len(sys.meta_path) <= before + 1
    autolog(disable=True)
    assert len(sys.meta_path) == before


def test_off_before_on_and_off_twice_are_fine(autolog):
    before = list(sys.meta_path)
    autolog(disable=True)
    autolog()
    autolog(disable=True)
    autolog(disable=True)

    assert sys.meta_path == before


def test_threads_that_turn_it_on_and_off_leave_one_hook_or_none(autolog):
    before, start = len(sys.meta_path), threading.Barrier(8)
    errors = []

    def toggle(number):
        start.wait(60)
        try:
            for turn in range(100):
                autolog(disable=(turn + number) % 2 == 1)
        except Exception as error:  # noqa: BLE001  shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=toggle, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    autolog()
    assert len(sys.meta_path) <= before + 1
    autolog(disable=True)
    assert len(sys.meta_path) == before


LOADED = (
    "print(*sorted({'keras', 'lightning', 'pytorch_lightning', 'torch', 'transformers', 'grpc'} & set(sys.modules)))"
)


def test_it_imports_no_framework():
    code = f"import katib_callbacks; katib_callbacks.autolog(metrics='loss'); {LOADED}"

    assert run(code, KATIB_TRIAL_NAME="trial") == []


def test_a_factory_imports_no_framework_in_a_process_that_did_not_ask():
    code = f"from katib_callbacks._autolog import lightning_callbacks; print(lightning_callbacks()); {LOADED}"

    assert run(code, KATIB_TRIAL_NAME="trial") == ["[]"]


def test_frameworks_that_are_not_installed_are_missing_as_before():
    code = """
import importlib
from katib_callbacks import autolog
from katib_callbacks._autolog import lightning_callbacks
def attempt():
    for name in ("keras", "transformers", "transformers.trainer", "lightning"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(error.name)
attempt()
print("on")
autolog(metrics="loss")
attempt()
print("off")
autolog(disable=True)
attempt()
"""
    missing = ["keras", "transformers", "transformers", "lightning"]
    out = run(code, blocked=["keras", "transformers", "lightning"], KATIB_TRIAL_NAME="trial")

    assert out == [*missing, "on", *missing, "off", *missing]


def test_a_factory_without_lightning_adds_nothing_and_says_why():
    code = """
import logging
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
from katib_callbacks import autolog
from katib_callbacks._autolog import lightning_callbacks
autolog()
print(lightning_callbacks())
"""
    out = " ".join(run(code, blocked=["lightning", "pytorch_lightning"], KATIB_TRIAL_NAME="trial"))

    assert out.startswith("WARNING autolog adds no callback: ")
    assert out.endswith(" []")


def test_importing_the_package_does_not_turn_it_on():
    code = "before = list(sys.meta_path); import katib_callbacks; print(sys.meta_path == before, len(sys.modules) > 0)"

    assert run(code, KATIB_CALLBACKS_AUTOLOG="1", KATIB_TRIAL_NAME="trial") == ["True", "True"]


# -- Lightning's factories, where there is nothing to add ------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_the_installed_package_names_its_factory_to_both_packages(group):
    (ours,) = [
        entry for entry in importlib.metadata.entry_points(group=group) if entry.value.startswith("katib_callbacks")
    ]

    assert ours.load() is lightning_callbacks


def test_a_process_that_did_not_ask_gets_nothing(autolog, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")

    assert lightning_callbacks() == []
    assert caplog.records == []


@pytest.mark.parametrize("word", ["0", "false", "", " "])
def test_the_variable_may_say_no(autolog, monkeypatch, caplog, word):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLOG", word)

    assert lightning_callbacks() == []
    assert caplog.records == []


def test_a_variable_that_says_neither_is_warned_of_and_means_no(autolog, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLOG", "maybe")

    assert lightning_callbacks() == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "KATIB_CALLBACKS_AUTOLOG must be 1 or 0" in record.getMessage()


def test_the_code_says_more_than_the_variable(autolog, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLOG", "1")
    autolog(disable=True)

    assert lightning_callbacks() == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("variables", "level"),
    [({}, "INFO"), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "WARNING"), ({"KATIB_CALLBACKS_AUTOLOG": "1"}, "WARNING")],
)
def test_outside_a_trial_there_is_nothing_and_one_line_says_so(autolog, monkeypatch, caplog, variables, level):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.INFO)
    if "KATIB_CALLBACKS_AUTOLOG" not in variables:
        autolog(metrics="loss")

    assert lightning_callbacks() == lightning_callbacks() == []
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == "Not in a Katib trial (KATIB_TRIAL_NAME is not set): nothing will be reported."


def test_disabled_there_is_nothing(autolog, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    caplog.set_level(logging.INFO)
    autolog()

    assert lightning_callbacks() == []
    assert [record.getMessage() for record in caplog.records] == [
        "KATIB_CALLBACKS_DISABLE is set: nothing will be reported."
    ]


def test_a_trial_that_cannot_be_one_is_warned_of(autolog, monkeypatch, caplog):
    autolog()
    monkeypatch.setenv("KATIB_TRIAL_NAME", "x" * 300)

    assert lightning_callbacks() == []
    assert "autolog adds no callback: KATIB_TRIAL_NAME" in caplog.text


def test_a_reporter_of_ones_own_may_name_the_trial():
    code = """
import logging
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
from katib_callbacks import KatibReporter, autolog
from katib_callbacks._autolog import lightning_callbacks
autolog(reporter=KatibReporter("localhost:6789", trial_name="mine"))
print(lightning_callbacks())
"""
    out = " ".join(run(code, blocked=["lightning", "pytorch_lightning"]))

    assert out.startswith("autolog adds no callback: neither lightning nor"), "it goes on to where Lightning is needed"


# -- documentation -----------------------------------------------------------------------------------------------------


def test_the_page_shows_a_call_that_works_and_variables_that_exist(autolog):
    page = (Path(__file__).parents[2] / "docs" / "autolog.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    before = len(sys.meta_path)
    exec(code, {})  # noqa: S102  our own page

    assert _autolog.state.STATE.is_on
    assert len(sys.meta_path) <= before + 1
    assert set(re.findall(r"KATIB_[A-Z_]+", page)) <= {v for v in vars(settings).values() if isinstance(v, str)}


# -- marks -----------------------------------------------------------------------------------------------------------


def test_a_callback_of_autologs_keeps_its_mark_in_another_process():
    callback = ReportingCallback("loss")
    assert is_explicit(callback)
    switch = Ownership()
    switch.mark(callback)
    sent = pickle.loads(pickle.dumps(callback))  # noqa: S301  our own bytes
    switch.turn_off()

    assert not is_explicit(sent)
    assert sent._autolog.is_on
    assert callback._is_superfluous()
    assert not sent._is_superfluous()
