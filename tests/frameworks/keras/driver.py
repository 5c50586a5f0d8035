"""Keras, as the scenarios drive it."""

import inspect

import keras
import numpy as np

from frameworks.scenarios.driver import EPOCHS, Driver, Training, scripted
from katib_callbacks.keras import KatibReportCallback

HOOKS = {"step": "on_train_batch_end", "epoch": "on_epoch_end", "end": "on_train_end"}


class Shows(keras.callbacks.Callback):
    """Puts the next score into the logs of each epoch with a validation, and notes what else there is."""

    def __init__(self, scores, validate_every, *, notes_weights=False):
        super().__init__()
        self.scores = scripted(scores)
        self.validate_every = validate_every
        self.weights = [] if notes_weights else None
        self.losses = []
        self.ours = []

    def on_train_begin(self, logs=None):
        frame = inspect.currentframe()
        while not isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            frame = frame.f_back
        callbacks = frame.f_locals["self"].callbacks
        self.ours = [callback for callback in callbacks if isinstance(callback, KatibReportCallback)]

    def on_epoch_end(self, epoch, logs=None):
        if self.validate_every and (epoch + 1) % self.validate_every == 0:
            logs["val_acc"] = next(self.scores)
        self.losses.append(float(logs["loss"]))
        if self.weights is not None:
            self.weights.append(self.model.get_weights())


class InOrder(keras.callbacks.Callback):
    """Has Keras call batch hooks one after the other, as it must for a callback that says nothing of async_safe."""

    def on_train_batch_end(self, batch, logs=None):
        pass


class KerasTraining(Training):
    def __init__(self, model, callbacks, shows, x, folder, options):
        self.model = model
        self.folder = folder
        self.callbacks = callbacks
        self.shows = shows
        self.x = x
        self.options = options

    def train(self, checkpoint=None):
        validation = {"validation_data": (self.x, 2 * self.x)} if self.shows.validate_every else {}
        self.model.fit(
            self.x, 2 * self.x, verbose=0, callbacks=[self.shows, *self.callbacks], **validation, **self.options
        )

    def evaluate(self):
        callbacks = [callback for callback in self.callbacks if isinstance(callback, KatibReportCallback)]
        self.model.evaluate(self.x, 2 * self.x, verbose=0, callbacks=callbacks)

    @property
    def epochs(self):
        return len(self.losses)

    @property
    def losses(self):
        return self.shows.losses

    @property
    def held_epoch(self):
        held = self.model.get_weights()
        after = enumerate(self.shows.weights, start=1)
        return max(number for number, each in after if all(map(np.array_equal, each, held)))

    @property
    def kept_epoch(self):
        *_, last = sorted(int(path.stem) for path in self.folder.glob("*.keras"))
        return last

    @property
    def ours(self):
        return self.shows.ours


class KerasDriver(Driver):
    callback = KatibReportCallback
    score = "val_acc"
    loss = "loss"
    others = frozenset({"mae", "val_loss", "val_mae"})
    misspelt = "val_accuracy"
    patched = (keras.Model, "fit")

    def __init__(self, make_model, folder):
        self.make_model = make_model
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
            if keeps == "saved":
                keeper = keras.callbacks.ModelCheckpoint(
                    self.folder / "{epoch}.keras", monitor="val_acc", mode="max", save_best_only=True
                )
            else:
                keeper = keras.callbacks.EarlyStopping("val_acc", mode="max", patience=9, restore_best_weights=True)
            callbacks = (*callbacks, keeper) if is_ours_first else (keeper, *callbacks)
        if stops_early:
            callbacks = (keras.callbacks.EarlyStopping("val_acc", mode="max", patience=1), *callbacks)
        if steps:
            callbacks = (*callbacks, InOrder())
        if validate_every:
            options["validation_freq"] = validate_every
        x = np.linspace(0, 1, steps or 8, dtype="float32").reshape(-1, 1)
        options |= {"epochs": epochs, "batch_size": 1 if steps else 4}
        shows = Shows(scores, validate_every, notes_weights=keeps is not None)
        return KerasTraining(self.make_model(), callbacks, shows, x, self.folder, options)

    def calls(self, **hooks):
        callback = keras.callbacks.Callback()
        begin = hooks.pop("begin", None)
        if begin:  # on_train_begin is too early: ours goes on in the first epoch's beginning
            callback.on_epoch_begin = lambda epoch, logs=None: None if epoch else begin()
        for name, call in hooks.items():
            setattr(callback, HOOKS[name], lambda *_, call=call, **__: call())
        return callback
