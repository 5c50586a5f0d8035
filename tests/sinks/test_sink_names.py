"""Sinks by name: the registry, plug-ins, and what is kept from messages."""

import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks import KatibReporter
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.masking import label_of, scrub
from katib_callbacks.sinks.registry import GROUP

PLUG_IN = """
import katib_callbacks
from katib_callbacks import SinkOutcome, RejectedError

class Store:
    def __init__(self, options):
        self.options = options
    def send(self, trial_name, logs, *, deadline_s):
        {send}
    def close(self):
        pass

def make(options):
    {make}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with a plug-in where Python looks: its module, and what pip would write about it."""

    def install_one(
        scheme, *, package="plugged", send="return SinkOutcome(len(logs), 1)", make="return Store(options)"
    ):
        folder = tmp_path / package
        info = folder / f"{package}-1.5.dist-info"
        info.mkdir(parents=True)
        (folder / f"{package}.py").write_text(PLUG_IN.format(send=send, make=make))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{scheme} = {package}:make\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, package, raising=False)

    yield install_one
    for package in ("plugged", "another"):
        sys.modules.pop(package, None)


def report(*sinks, **options):
    with KatibReporter(trial_name="trial", sinks=sinks, **options) as reporter:
        return reporter.report({"loss": 1})


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pigeon://user:s3cret@loft"], r"no sink 'pigeon://\*\*\*@loft'; known are 'katib', 'stdout', .*'file'"),
        (["stdout:"], "nothing may follow the name 'stdout'"),
        (["katib://host"], "nothing may follow the name 'katib'"),
        (["file:///a", "file:///a"], "'?file:///a'? twice"),
        ("file://u:s3cret@/a", r"must be several sinks"),
        ([""], "no sink ''"),
    ],
)
def test_a_name_that_cannot_be_right(names, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        KatibReporter(trial_name="trial", sinks=names)

    assert "s3cret" not in str(caught.value)


def test_the_variable_takes_several_names(monkeypatch, tmp_path):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", f" file://{tmp_path}/a%2Cb.jsonl , file://{tmp_path}/c.jsonl,")
    with KatibReporter(trial_name="trial") as reporter:
        receipt = reporter.report({"loss": 1})

    assert list(receipt.sinks) == [f"file://{tmp_path}/a%2Cb.jsonl", f"file://{tmp_path}/c.jsonl"]
    assert {outcome.delivered for outcome in receipt.sinks.values()} == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a,b.jsonl", "c.jsonl"]


def test_our_own_sinks_look_through_no_packages():
    code = """
import sys
from katib_callbacks import KatibReporter
KatibReporter(trial_name="t", sinks=["katib", "stdout", "file:///nowhere/rows.jsonl"]).close()
with KatibReporter(trial_name="t", sinks=["stdout"]) as reporter:
    reporter.report({"loss": 1})
print(sorted({"importlib.metadata", "grpc", "prometheus_client", "ssl", "email"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)

    assert done.stdout.splitlines()[-1] == "[]"


# -- secrets -------------------------------------------------------------------------------------------------------

SECRETS = st.text(min_size=4).filter(lambda text: text not in "scheme://***@host.example/path?***" and "@" not in text)


@given(SECRETS, st.sampled_from(["scheme://", "scheme:", "prometheus+https://"]))
def test_no_secret_is_in_a_label(secret, start):
    rest = secret.lstrip("/") or "xxxx"

    assert label_of(f"{start}user:{rest}@host.example/path") == f"{start}***@host.example/path"
    assert rest not in label_of(f"{start}{rest}@host.example/path?{rest}#{rest}").removeprefix(start)


@pytest.mark.parametrize(
    "name", ["katib", "stdout", "file:///a/b@c.jsonl", "mystore:project", "prometheus+http://h:1/x"]
)
def test_a_name_without_secrets_is_its_own_label(name):
    assert label_of(name) == name


@pytest.mark.parametrize(
    "form", ["pa%20ss", "pa ss", "user:pa%20ss@", "scheme://user:pa%20ss@host?token=t0ken", "t0ken"]
)
def test_messages_of_others_are_scrubbed(form):
    said = scrub(f"cannot reach {form}!", "scheme://user:pa%20ss@host?token=t0ken")

    assert "pa" not in said
    assert "t0ken" not in said
    assert "***" in said


# -- plug-ins ------------------------------------------------------------------------------------------------------


def test_a_plug_in_is_given_its_name_and_the_trial(install, tmp_path):
    install(
        "mystore",
        send="from pathlib import Path\n"
        "        seen = repr((self.options, trial_name, logs[0].name))\n"
        "        Path(self.options.name.partition('://')[2]).write_text(seen)\n"
        "        return SinkOutcome(len(logs), 1)",
    )

    receipt = report(f"mystore://{tmp_path}/seen")

    assert receipt.delivered == 1
    assert (tmp_path / "seen").read_text() == (
        f"(SinkOptions(label='mystore://{tmp_path}/seen', trial_name='trial'), 'trial', 'loss')"
    )


@pytest.mark.parametrize(
    ("plug_in", "message"),
    [
        ({"make": "raise OSError(options.name)"}, r"cannot be made: OSError: mystore://\*\*\*@host"),
        ({"make": "return object"}, r"plugged:make gave no object with send\(\) and close\(\)"),
        ({"make": "return None"}, r"plugged:make gave no object"),
        ({"make": "pass\nimport not_there"}, "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ({"make": "pass\n]"}, "cannot be imported: SyntaxError"),
    ],
)
def test_a_plug_in_that_fails_names_its_package_before_the_training(install, plug_in, message):
    install("mystore", **plug_in)
    names = ["katib", "mystore://user:s3cret@host"]  # not in the line that a traceback shows

    with pytest.raises(ConfigurationError, match=rf"of package plugged 1.5 \(plugged:make\).*{message}") as caught:
        KatibReporter(trial_name="trial", sinks=names)

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_name_that_two_packages_offer(install):
    install("mystore")
    install("mystore", package="another")

    with pytest.raises(ConfigurationError, match=r"offered by package .* 1.5 \(.*\) and package .* 1.5 \(.*\)"):
        KatibReporter(trial_name="trial", sinks=["mystore"])


def test_a_plug_in_is_known_where_another_name_is_not(install):
    install("mystore")

    with pytest.raises(ConfigurationError, match=r"known are .*'mystore'"):
        KatibReporter(trial_name="trial", sinks=["yourstore"])


def test_a_plug_in_does_not_take_a_name_of_ours(install, tmp_path):
    install("file", make="raise AssertionError")

    assert report(f"file://{tmp_path}/rows.jsonl").delivered == 1
