"""Copies and pickles; what the callback does to the training: no synchronisation, no channel outside a trial."""

import os
import pickle
import subprocess
import sys

import keras
import pytest

from katib_callbacks.keras import KatibReportCallback


def test_a_pickle_leaves_the_model_behind(rows, fit, make_model):
    class Local(keras.Model):  # cannot be pickled: its class has no importable name
        pass

    callback = KatibReportCallback("loss")
    fit(callback, model=make_model(Local))
    assert pickle.loads(pickle.dumps(callback)).model is None  # noqa: S301  our own bytes
    assert callback.model is not None
    assert [name for name, _ in rows()] == ["loss"]


class Scalar:
    """A value that counts how often it is read, which on an accelerator waits for the device."""

    reads = 0

    def __init__(self, number):
        self.number = number

    def __float__(self):
        Scalar.reads += 1
        return self.number


@pytest.mark.parametrize(("report", "reads"), [("final", 1), ("history", 3), ("best", 3)])
@pytest.mark.parametrize("is_first", [True, False], ids=["ours first", "ours last"])
def test_a_value_is_read_at_most_once_a_metric_and_epoch(rows, fit, shows, monkeypatch, report, reads, is_first):
    monkeypatch.setattr(Scalar, "reads", 0)
    options = {"monitor": "score", "mode": "max"} if report == "best" else {}
    ours = KatibReportCallback("score", report=report, **options)
    others = shows(score=[Scalar(0.25), Scalar(0.5), Scalar(0.75)])
    fit(*([ours, others] if is_first else [others, ours]), epochs=3)
    assert [value for _, value in rows()] == ([0.25, 0.5, 0.75] if report == "history" else [0.75])
    assert Scalar.reads == reads


def test_there_is_no_batch_hook(rows):
    """One in the list makes Keras wait for every batch."""
    assert rows() == []
    base = vars(keras.callbacks.Callback)
    hooks = [name for name in base if name.startswith("on_") and "batch" in name]
    assert len(hooks) == 8
    assert all(getattr(KatibReportCallback, name) is base[name] for name in hooks)


class CountsSyncs(keras.Model):
    """Counts how often JAX has to copy its state back into the model; other backends never do."""

    syncs = 0

    def jax_state_sync(self):
        CountsSyncs.syncs += 1
        super().jax_state_sync()


def test_no_hook_makes_jax_copy_its_state_back(rows, fit, make_model, monkeypatch):
    counts = []
    for callbacks in [[], [KatibReportCallback(["loss", "val_loss"], report="history")]]:
        monkeypatch.setattr(CountsSyncs, "syncs", 0)
        fit(*callbacks, model=make_model(CountsSyncs), epochs=3)
        counts.append(CountsSyncs.syncs)
    without, with_callback = counts
    assert with_callback == without
    assert (without > 0) == (keras.backend.backend() == "jax")
    assert len(rows()) == 6


OUTSIDE_A_TRIAL = """
import sys, warnings
warnings.simplefilter("ignore")
import keras, numpy
from katib_callbacks.keras import KatibReportCallback
before = set(sys.modules)
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile(loss="mse")
callback = KatibReportCallback("loss")
model.fit(numpy.ones((4, 1)), numpy.ones((4, 1)), verbose=0, callbacks=[callback])
assert callback.receipt is None
print("loaded", sorted({name.partition(".")[0] for name in set(sys.modules) - before} & {"grpc", "google"}))
"""


def test_outside_a_trial_grpc_is_not_loaded():
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KATIB_")}
    result = subprocess.run(
        [sys.executable, "-c", OUTSIDE_A_TRIAL], capture_output=True, text=True, timeout=240, check=True, env=environ
    )
    assert "loaded []" in result.stdout


def test_without_a_backend_the_error_says_what_is_missing():
    script = "import katib_callbacks.keras"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"KERAS_BACKEND": "nonsense"},
    )
    assert result.returncode != 0
    assert "nonsense" in result.stderr
