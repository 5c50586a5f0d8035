"""Copies, pickles, resumed runs, hyperparameter search."""

import json
from pathlib import Path

import pytest
from transformers import TrainerCallback, TrainerState

from katib_callbacks.transformers import KatibReportCallback


class Killed(TrainerCallback):
    """Ends a run once a checkpoint is written, as a pod that is lost."""

    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **_):
        if state.global_step == self.step:
            raise RuntimeError("killed")


@pytest.fixture
def interrupted(make_trainer):
    """Train some steps of four with a checkpoint after each, as a run that is then killed; return the last one."""

    def interrupt(callback, *, steps, **options):
        trainer = make_trainer(callback, Killed(steps), num_train_epochs=4, save_strategy="epoch", **options)
        with pytest.raises(RuntimeError, match="killed"):
            trainer.train()
        return f"{trainer.args.output_dir}/checkpoint-{steps}"

    return interrupt


def test_a_resumed_run_that_reports_more_metrics_has_those_of_the_first_part(
    make_trainer, rows, interrupted, can_resume
):
    path = interrupted(KatibReportCallback("eval_accuracy"), steps=3)
    trainer = make_trainer(KatibReportCallback(["eval_accuracy", "loss"]), num_train_epochs=4, eval_strategy="no")
    trainer.train(resume_from_checkpoint=path)
    assert rows() == [("eval_accuracy", 0.3), ("loss", 0.0625)]


def test_a_loaded_model_of_the_first_part_of_a_resumed_run_has_the_best_row(
    make_trainer, rows, interrupted, can_resume, tmp_path
):
    best = {"report": "best", "monitor": "eval_accuracy"}
    options = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
    path = interrupted(KatibReportCallback("eval_accuracy", **best), steps=2, scores=[0.875, 0.5], **options)
    trainer = make_trainer(
        KatibReportCallback(["eval_accuracy", "loss"], **best),
        scores=[0.25, 0.125],
        num_train_epochs=4,
        save_strategy="epoch",
        **options,
    )
    trainer.train(resume_from_checkpoint=path)
    assert rows() == [("eval_accuracy", 0.875), ("loss", 0.5)]


def test_a_finished_checkpoint_has_its_old_values_and_no_loss_of_nothing(make_trainer, rows, can_resume):
    make_trainer(KatibReportCallback("eval_accuracy"), save_strategy="epoch").train()
    callback = KatibReportCallback(["eval_accuracy", "train_loss"], on_missing="ignore")
    make_trainer(callback).train(resume_from_checkpoint=True)
    assert rows() == [("eval_accuracy", 0.2), ("eval_accuracy", 0.2)]


def test_the_loss_of_a_finished_run_that_was_saved_is_kept(make_trainer, rows, can_resume):
    trainer = make_trainer(KatibReportCallback("eval_accuracy"), save_strategy="epoch")
    trainer.train()
    checkpoint = Path(trainer.args.output_dir, "checkpoint-2")
    trainer.state.save_to_json(checkpoint / "trainer_state.json")
    make_trainer(KatibReportCallback("train_loss")).train(resume_from_checkpoint=str(checkpoint))
    assert rows() == [("eval_accuracy", 0.2), ("train_loss", 0.375)]


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_checkpoint_knows_nothing_of_the_callback(make_trainer, rows, can_resume, is_restored):
    trainer = make_trainer(KatibReportCallback("eval_accuracy"), save_strategy="epoch")
    trainer.train()
    trainer.save_state()
    saved = Path(trainer.args.output_dir, "checkpoint-1", "trainer_state.json")
    assert list(TrainerState.load_from_json(saved).stateful_callbacks) == ["TrainerControl"]
    assert "atib" not in saved.read_text()
    assert json.loads(Path(trainer.args.output_dir, "trainer_state.json").read_text())["global_step"] == 2

    callback = KatibReportCallback({"accuracy": "eval_accuracy"}, report="history")
    trainer = make_trainer(callback, restore_callback_states_from_checkpoint=is_restored)
    trainer.train(resume_from_checkpoint=str(saved.parent))
    assert callback in trainer.callback_handler.callbacks
    assert rows() == [("eval_accuracy", 0.2), ("accuracy", 0.1), ("accuracy", 0.1)]


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def search(trainer, **options):
    return trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3)},
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        backend="optuna",
        direction="maximize",
        n_trials=2,
        **options,
    )


def test_each_run_of_a_hyperparameter_search_reports(optuna, make_trainer, model_init, rows):
    trainer = make_trainer(KatibReportCallback("eval_accuracy"), model_init=model_init)
    assert search(trainer).objective == 0.4
    assert rows() == [("eval_accuracy", 0.2), ("eval_accuracy", 0.4)]


def test_a_run_that_the_search_prunes_reports_nothing(optuna, make_trainer, model_init, rows):
    trainer = make_trainer(KatibReportCallback("eval_accuracy"), model_init=model_init, scores=[0.5, 0.5, 0.4, 0.4])
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    assert search(trainer, pruner=pruner).objective == 0.5
    assert trainer.state.global_step == 1
    assert rows() == [("eval_accuracy", 0.5)]
