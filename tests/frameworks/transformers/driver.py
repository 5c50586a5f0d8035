"""transformers, as the scenarios drive it."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # transformers 4 imports numpy.core
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer import CallbackHandler

from frameworks.scenarios.driver import EPOCHS, Driver, Training
from katib_callbacks.transformers import KatibReportCallback

HOOKS = {"begin": "on_train_begin", "step": "on_step_end", "epoch": "on_epoch_end", "end": "on_train_end"}


class SkipsEvaluations(TrainerCallback):
    """Lets only every so many epochs end with an evaluation; with ``eval_steps`` the last one always does."""

    def __init__(self, every):
        self.every = every

    def on_epoch_end(self, args, state, control, **_):
        control.should_evaluate = round(state.epoch) % self.every == 0


class TransformersTraining(Training):
    def __init__(self, trainer):
        self.trainer = trainer

    def train(self, checkpoint=None):
        self.trainer.train(resume_from_checkpoint=checkpoint)

    def evaluate(self):
        self.trainer.evaluate()

    def test(self):
        self.trainer.predict(self.trainer.eval_dataset)

    @property
    def epochs(self):
        return int(self.trainer.state.epoch)

    @property
    def losses(self):
        return [row["loss"] for row in self.trainer.state.log_history if "loss" in row]

    @property
    def held_epoch(self):
        return int(self.trainer.model.steps)  # one an epoch

    @property
    def kept_epoch(self):
        return int(self.trainer.state.best_model_checkpoint.rpartition("-")[2])

    @property
    def ours(self):
        return [
            callback
            for callback in self.trainer.callback_handler.callbacks
            if isinstance(callback, KatibReportCallback)
        ]


class TransformersDriver(Driver):
    callback = KatibReportCallback
    score = "eval_accuracy"
    loss = "loss"
    others = frozenset({"grad_norm", "learning_rate", "eval_loss"})
    bookkeeping = frozenset({"epoch", "step", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"})
    misspelt = "accuracy"
    tested = "test_accuracy"
    patched = (CallbackHandler, "add_callback")

    def __init__(self, make_trainer):
        self.make_trainer = make_trainer

    def trainer(
        self,
        *callbacks,
        scores=None,
        epochs=EPOCHS,
        steps=None,
        validate_every=1,
        stops_early=False,
        keeps=None,
        is_ours_first=True,
        **options,
    ):
        del is_ours_first  # the Trainer itself keeps
        if keeps is not None:
            options |= {"metric_for_best_model": "accuracy", "save_strategy": "epoch"}
            options["load_best_model_at_end"] = keeps == "restored"
        options["num_train_epochs"] = epochs
        if steps:
            options["per_device_train_batch_size"] = 1
        if validate_every is None:
            options["eval_strategy"] = "no"
        elif validate_every > 1:
            callbacks = (SkipsEvaluations(validate_every), *callbacks)
        if stops_early:
            callbacks = (*callbacks, EarlyStoppingCallback(early_stopping_patience=1))
            options |= {"metric_for_best_model": "accuracy", "load_best_model_at_end": True, "save_strategy": "epoch"}
        return TransformersTraining(self.make_trainer(*callbacks, scores=scores, **options))

    def calls(self, **hooks):
        callback = TrainerCallback()
        for name, call in hooks.items():
            setattr(callback, HOOKS[name], lambda *_, call=call, **__: call())
        return callback

    def interrupted(self, callback, *, scores, epochs, steps=None):
        last = len(scores) * (steps or 1)

        class Killed(TrainerCallback):
            def on_save(self, args, state, control, **_):
                if state.global_step == last:
                    raise RuntimeError("killed")

        training = self.trainer(callback, Killed(), scores=scores, epochs=epochs, steps=steps, save_strategy="epoch")
        with pytest.raises(RuntimeError, match="killed"):
            training.train()
        return f"{training.trainer.args.output_dir}/checkpoint-{last}"
