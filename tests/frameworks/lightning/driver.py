"""Lightning, as the scenarios drive it."""

from inspect import signature

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from frameworks.lightning.conftest import TinyModule
from frameworks.scenarios.driver import EPOCHS, Driver, Training, scripted
from katib_callbacks.lightning import KatibReportCallback

HOOKS = {"begin": "on_train_start", "step": "on_train_batch_end", "epoch": "on_train_epoch_end", "end": "on_train_end"}


class ScriptedModule(TinyModule):
    """Takes the next score at each validation but the sanity check."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scripted(scores)

    def on_validation_epoch_start(self):
        self.score = 99.0 if self.trainer.sanity_checking else next(self.scores)

    def validation_step(self, batch, _):
        self.log("val_acc", self.score)


class LightningTraining(Training):
    def __init__(self, trainer, module, loader, is_validated):
        self.trainer = trainer
        self.module = module
        self.loader = loader
        self.validation = loader if is_validated else None

    def train(self, checkpoint=None):
        # Lightning 2.6 can be told to unpickle nothing.
        strict = (
            {"weights_only": True} if checkpoint and "weights_only" in signature(self.trainer.fit).parameters else {}
        )
        self.trainer.fit(self.module, self.loader, self.validation, ckpt_path=checkpoint, **strict)

    def evaluate(self):
        self.trainer.validate(self.module, self.loader, verbose=False)

    def test(self):
        self.trainer.test(self.module, self.loader, verbose=False)

    @property
    def epochs(self):
        return self.trainer.current_epoch

    @property
    def losses(self):
        return [1 / (epoch + 1) for epoch in range(self.epochs)]

    @property
    def held_epoch(self):
        return self.trainer.current_epoch

    @property
    def kept_epoch(self):
        return torch.load(self.trainer.checkpoint_callback.best_model_path, weights_only=True)["epoch"] + 1

    @property
    def ours(self):
        return [callback for callback in self.trainer.callbacks if isinstance(callback, KatibReportCallback)]


class LightningDriver(Driver):
    callback = KatibReportCallback
    score = "val_acc"
    loss = "train_loss"
    others = frozenset()
    misspelt = "val_accuracy"
    tested = "test_acc"
    puts_back = False
    is_on_by_environment = True

    def __init__(self, make_trainer, loader, folder):
        self.make_trainer = make_trainer
        self.loader = loader
        self.folder = folder

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
        if keeps is not None:
            keeper = ModelCheckpoint(str(self.folder / "kept"), monitor="val_acc", mode="max")
            callbacks = (*callbacks, keeper) if is_ours_first else (keeper, *callbacks)
            options["enable_checkpointing"] = True
        loader = self.loader
        if steps:
            x = torch.linspace(0, 1, steps).reshape(steps, 1)
            loader = DataLoader(TensorDataset(x, 2 * x), batch_size=1)
        if stops_early:
            callbacks = (*callbacks, EarlyStopping("val_acc", mode="max", patience=1))
        trainer = self.make_trainer(
            *callbacks,
            max_epochs=epochs,
            check_val_every_n_epoch=validate_every or 1,
            num_sanity_val_steps=2,
            **options,
        )
        return LightningTraining(trainer, ScriptedModule(scores), loader, validate_every is not None)

    def calls(self, **hooks):
        callback = Callback()
        for name, call in hooks.items():
            setattr(callback, HOOKS[name], lambda *_, call=call, **__: call())
        return callback

    def interrupted(self, callback, *, scores, epochs, steps=None):
        checkpoint = ModelCheckpoint(str(self.folder), save_last=True, save_on_train_epoch_end=True)
        training = self.trainer(
            callback, checkpoint, scores=scores, epochs=epochs, steps=steps, enable_checkpointing=True
        )

        def fail():
            if training.epochs == len(scores):
                raise RuntimeError("killed")

        training.module.on_train_epoch_start = fail
        with pytest.raises(RuntimeError, match="killed"):
            training.train()
        return self.folder / "last.ckpt"
