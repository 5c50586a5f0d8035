"""autolog and the entry points that it comes by: real Trainers, none of which was given a callback by the test."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from katib_callbacks.lightning import KatibReportCallback


@pytest.fixture
def rows(katib_db_manager):
    return lambda: [(row.name, float(row.value)) for row in katib_db_manager.metrics()]


@pytest.fixture
def fit(module, loader):
    return lambda trainer: trainer.fit(module, loader, loader)


def ours(trainer):
    return [callback for callback in trainer.callbacks if isinstance(callback, KatibReportCallback)]


# -- on, off, twice ----------------------------------------------------------------------------------------------------


def test_a_misspelt_variable_is_named(autolog, make_trainer, monkeypatch, caplog):
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLGO", "1")
    assert ours(make_trainer()) == []
    assert "KATIB_CALLBACKS_AUTOLGO is not a variable" in caplog.text
    assert "Did you mean KATIB_CALLBACKS_AUTOLOG?" in caplog.text


def test_twice_the_last_arguments_count_for_new_trainers(autolog, rows, make_trainer, fit):
    autolog(metrics="train_loss")
    first = make_trainer()
    autolog(metrics="val_acc")
    second = make_trainer()
    assert len(ours(first)) == len(ours(second)) == 1
    fit(second)
    assert rows() == [("val_acc", pytest.approx(0.2))]
    fit(first)
    assert rows()[1:] == [("train_loss", 0.5)]


# -- by environment alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", ["", None])
def test_outside_a_trial_no_trainer_has_it(autolog, rows, make_trainer, fit, monkeypatch, trial):
    assert rows() == []
    if trial is None:
        monkeypatch.delenv("KATIB_TRIAL_NAME")
    else:
        monkeypatch.setenv("KATIB_TRIAL_NAME", trial)
    monkeypatch.setenv("KATIB_CALLBACKS_AUTOLOG", "1")
    trainer = make_trainer()
    assert ours(trainer) == []
    fit(trainer)
    assert rows() == []


@pytest.mark.parametrize("variable", ["RANK", "OMPI_COMM_WORLD_RANK"])
def test_one_of_several_processes_has_it_outside_a_trial_too(
    autolog, rows, make_trainer, fit, monkeypatch, variable, caplog
):
    """Where another rank is in the trial, what its callback reads across ranks must be read here as well."""
    monkeypatch.delenv("KATIB_TRIAL_NAME")
    monkeypatch.setenv(variable, "0")
    autolog(metrics="val_acc")
    trainer = make_trainer()
    assert len(ours(trainer)) == 1
    fit(trainer)
    assert rows() == []


# -- beside explicit callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"metrics": "val_acc"}, {"metrics": "train_loss"}], ids=["equal", "other"])
def test_one_that_is_added_later_counts(autolog, rows, make_trainer, fit, arguments, tmp_path):
    autolog(**arguments)
    trainer = make_trainer(enable_checkpointing=True)
    trainer.callbacks.append(KatibReportCallback("val_acc"))
    fit(trainer)
    assert rows() == [("val_acc", pytest.approx(0.2))]


def test_one_that_the_module_configures_counts(autolog, rows, make_trainer, fit, module):
    module.configure_callbacks = lambda: [KatibReportCallback("val_acc")]
    autolog(metrics="train_loss")
    trainer = make_trainer()
    fit(trainer)
    assert rows() == [("val_acc", pytest.approx(0.2))]
    assert len(ours(trainer)) == 1


def test_a_list_that_serves_two_trainers_gets_one(autolog, rows, make_trainer, fit):
    """Lightning extends the very list that it is given."""

    class Other(Callback):
        pass

    shared = [Other()]
    autolog(metrics="val_acc")

    def make_shared(**options):
        return make_trainer(trainer_class=lambda callbacks, **rest: Trainer(callbacks=shared, **rest), **options)

    from lightning.pytorch import Trainer  # noqa: PLC0415

    first, second = make_shared(), make_shared()
    assert ours(first) == ours(second)
    assert len(ours(second)) == 1
    fit(first)
    fit(second)
    assert rows() == [("val_acc", pytest.approx(0.2))] * 2


# -- trainings and Trainers of every kind ------------------------------------------------------------------------------


def test_it_comes_after_the_users_and_before_the_checkpoints(autolog, rows, make_trainer, fit, tmp_path):
    class Other(Callback):
        pass

    delivered = []

    class Checkpoint(ModelCheckpoint):
        def on_train_end(self, trainer, pl_module):
            delivered.append(len(rows()))

    autolog(metrics="val_acc")
    trainer = make_trainer(Checkpoint(dirpath=tmp_path), Other(), enable_checkpointing=True)
    kinds = [type(callback) for callback in trainer.callbacks]
    assert kinds == [Other, KatibReportCallback, Checkpoint]
    fit(trainer)
    assert delivered == [0], "the last checkpoint is written before the rows are delivered"
    assert len(rows()) == 1


@pytest.mark.parametrize("option", [{"fast_dev_run": True}, {"barebones": True}], ids=str)
def test_trainings_that_show_no_metrics_are_not_broken(autolog, rows, make_trainer, module, loader, option):
    autolog()
    trainer = make_trainer(**option)
    trainer.fit(module, loader, loader)
    assert rows() == []


def test_a_checkpoint_of_autologs_is_one_of_an_explicit_callbacks(autolog, rows, make_trainer, fit, module, loader):
    autolog(metrics="val_acc", report="history")
    trainer = make_trainer(max_epochs=1)
    fit(trainer)
    path = f"{trainer.default_root_dir}/last.ckpt"
    trainer.save_checkpoint(path)
    autolog(disable=True)
    resumed = make_trainer(KatibReportCallback("val_acc", report="history"))
    resumed.fit(module, loader, loader, ckpt_path=path)
    assert [value for _, value in rows()] == [pytest.approx(number) for number in (0.1, 0.1, 0.2)]


def test_a_copied_callback_reports_and_is_turned_off_with_its_original(autolog, rows, make_trainer, fit):
    autolog(metrics="val_acc")
    (callback,) = ours(make_trainer())
    copies = [pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)]  # noqa: S301  our own bytes
    for each in copies:
        fit(make_trainer(each))
    assert len(rows()) == 2
    autolog(disable=True)
    fit(make_trainer(copies[1]))
    assert len(rows()) == 2


# -- imports, packages, processes --------------------------------------------------------------------------------------

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
{before}
{autolog}
{after}
import torch
from torch.utils.data import DataLoader, TensorDataset

class Module({package}.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        loss = self.layer(batch[0]).mean()
        self.log("loss", 0.25, sync_dist={devices} > 1)
        return loss
    def on_train_epoch_end(self):
        self.all_gather(torch.zeros(1))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    trainer = {package}.Trainer(max_epochs=2, accelerator="cpu", devices={devices}, strategy="{strategy}",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks={callbacks})
    trainer.fit(Module(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))
    print("ours", sum("Katib" in type(callback).__name__ for callback in trainer.callbacks))
"""
CALL = "import katib_callbacks; katib_callbacks.autolog(metrics='loss')"
PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


def run(katib_db_manager, tmp_path, package, variables=None, **parts):
    """Run a script of its own; return what rows were delivered, and the script's output."""
    defaults = {"before": "", "after": "", "autolog": CALL, "callbacks": "None", "devices": 1, "strategy": "auto"}
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(package=PACKAGES[package], **(defaults | parts)), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | (variables or {}),
    )
    assert result.returncode == 0, result.stderr
    return [(row.name, row.value) for row in katib_db_manager.metrics()], result.stdout


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("place", ["before", "after"])
def test_either_package_may_be_imported_before_or_after(katib_db_manager, tmp_path, package, place):
    parts = {"before": "", "after": "", place: f"import {PACKAGES[package]}"}
    assert run(katib_db_manager, tmp_path, package, **parts)[0] == [("loss", "0.25")]


@pytest.mark.parametrize("package", PACKAGES)
def test_either_package_is_served_by_environment_alone(katib_db_manager, tmp_path, package):
    """The script knows nothing of this project."""
    found, out = run(
        katib_db_manager,
        tmp_path,
        package,
        {"KATIB_CALLBACKS_AUTOLOG": "1", "KATIB_CALLBACKS_METRICS": "loss"},
        autolog=f"import {PACKAGES[package]}",
    )
    assert found == [("loss", "0.25")]
    assert "ours 1" in out


def test_the_other_package_is_not_served_either_in_a_process_that_did_not_ask(katib_db_manager, tmp_path):
    found, out = run(katib_db_manager, tmp_path, "pytorch_lightning", autolog="import pytorch_lightning")
    assert found == []
    assert "ours 0" in out


def test_lightning_alone_is_installed(katib_db_manager, tmp_path):
    """What autolog cannot find, it does without."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['keras', 'pytorch_lightning']))"
    found, _ = run(katib_db_manager, tmp_path, "lightning", before=blocked, after="import lightning.pytorch")
    assert found == [("loss", "0.25")]


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_of_two_processes_one_reports_once(katib_db_manager, tmp_path, strategy):
    """Every process calls autolog at its top; a spawned one also gets the callback with the trainer."""
    parts = {"after": "import lightning.pytorch", "devices": 2, "strategy": strategy}
    found, out = run(katib_db_manager, tmp_path, "lightning", **parts)
    assert found == [("loss", "0.25")]
    assert "ours 1" in out


def test_a_spawned_process_has_the_callback_without_a_call_of_its_own(katib_db_manager, tmp_path):
    call = f"import lightning.pytorch\nif __name__ == '__main__':\n    {CALL.replace('; ', chr(10) + '    ')}"
    found, _ = run(katib_db_manager, tmp_path, "lightning", autolog=call, devices=2, strategy="ddp_spawn")
    assert found == [("loss", "0.25")]
