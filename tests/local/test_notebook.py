"""What a notebook shows, and what waiting shows elsewhere."""

import logging
import sys
import types

import pytest
from homes import experiment

from katib_callbacks.local import LocalKatibClient

REPORTS = "from katib_callbacks import report_metrics\nreport_metrics({'loss': 0.5})"


@pytest.fixture
def client(local):
    with LocalKatibClient(home=local.home) as client:
        yield client


class Notebook:
    """IPython, as far as it is asked, in a process that has none."""

    def __init__(self):
        self.shown = []
        self.kernel = object()

    def install(self, monkeypatch):
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        ipython.get_ipython = lambda: self
        display.HTML = str
        display.display = lambda text, *, display_id: self
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def update(self, text):
        self.shown.append(text)


def test_waiting_in_a_notebook_changes_one_output(client, monkeypatch):
    notebook = Notebook()
    notebook.install(monkeypatch)
    client.create_experiment(experiment(REPORTS))
    client.wait_for_experiment_condition("one", timeout=240)

    assert "0 of 3 trials: none finished yet" in notebook.shown[0]
    assert "3 of 3 trials: 3 Succeeded" in notebook.shown[-1]
    assert "best loss <b>0.5</b> ▄▄▄ one-" in notebook.shown[-1]


def test_waiting_without_a_terminal_logs_how_each_trial_ended(client, caplog, capsys):
    with caplog.at_level(logging.INFO, "katib_callbacks"):
        client.create_experiment(experiment(REPORTS))
        client.wait_for_experiment_condition("one", timeout=240)

    lines = [record.getMessage() for record in caplog.records if record.name == "katib_callbacks.pictures.notebook"]
    assert [line.partition("]")[0] for line in lines] == ["[1/3", "[2/3", "[3/3"]
    assert all(" Succeeded, loss 0.5: Trial has succeeded" in line for line in lines)
    assert capsys.readouterr().out == ""


def test_objects_have_a_table(client):
    name = "<b>"
    parameter = {"name": name, "parameterType": "discrete", "feasibleSpace": {"list": ["7"]}}
    one = experiment(REPORTS)
    one["spec"]["parameters"].append(parameter)
    client.create_experiment(one)
    done = client.wait_for_experiment_condition("one", timeout=240)
    (trial, *_) = client.list_trials("one")

    shown = done._repr_html_()
    assert "<th>Experiment</th><th>one</th>" in shown
    assert "<td>Trials</td><td>3 of 3</td>" in shown
    assert "<td>&lt;b&gt;</td><td>7</td>" in shown
    assert f"<th>Trial</th><th>{trial.metadata.name}</th>" in trial._repr_html_()
    assert "<td>loss</td><td>0.5 (min 0.5, max 0.5)</td>" in trial._repr_html_()
    assert "<th>Best trial</th>" in client.get_optimal_hyperparameters("one")._repr_html_()
    assert "<td>one</td><td>Succeeded</td><td>3</td><td>0.5</td>" in client._repr_html_()
    assert client.get_suggestion("one")._repr_html_().startswith("<pre>{")
