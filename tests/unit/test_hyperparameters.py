"""hyperparameters(): from the variables of an OptimizationJob's trial."""

import os

import pytest

from katib_callbacks import hyperparameters


@pytest.fixture(autouse=True)
def no_trial(monkeypatch):
    for name in os.environ:
        if name.startswith("KUBEFLOW_TRAINER_OPT_"):
            monkeypatch.delenv(name)


def test_outside_of_a_trial_there_are_none():
    assert dict(hyperparameters()) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-3", -3),
        ("0.1", 0.1),
        ("8.0", 8.0),
        ("1e-3", 0.001),
        ("1E2", 100.0),
        ("adam", "adam"),
        ("007", "007"),
        (" 8", " 8"),
        ("8\n", "8\n"),
        ("nan", "nan"),
        ("True", "True"),
        ("٣", "٣"),
        ("", ""),
    ],
)
def test_a_number_is_one_and_all_else_is_text(monkeypatch, text, value):
    monkeypatch.setenv("KUBEFLOW_TRAINER_OPT_X", text)

    found = hyperparameters()["x"]

    assert (type(found), found) == (type(value), value)


def test_the_case_of_a_name_does_not_matter(monkeypatch):
    monkeypatch.setenv("KUBEFLOW_TRAINER_OPT_LEARNINGRATE", "0.1")
    monkeypatch.setenv("KUBEFLOW_TRAINER_OPT_OPTIM.NAME", "adam")
    found = hyperparameters()

    assert found["learningRate"] == found["LEARNINGRATE"] == found["learningrate"] == 0.1
    assert found["optim.name"] == "adam"
    assert "learningRate" in found
    assert found == {"learningrate": 0.1, "optim.name": "adam"}
    assert (len(found), repr(found)) == (2, "{'learningrate': 0.1, 'optim.name': 'adam'}")
    assert found.get("momentum", 0.9) == 0.9
    with pytest.raises(KeyError, match="momentum"):
        found["momentum"]
