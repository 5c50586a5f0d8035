"""Trains in each framework until the DB manager ends it, and counts what the ranks say to one another meanwhile."""

import witness  # isort: skip  # first, to see everything

import argparse
import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from katib_callbacks.sinks.katib import asking

COLLECTIVES = {
    "torch.distributed": (
        *("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier", "broadcast"),
        *("broadcast_object_list", "gather", "gather_object", "monitored_barrier", "reduce", "reduce_scatter"),
        *("reduce_scatter_tensor", "scatter", "scatter_object_list", "send", "recv"),
    ),
    "jax.experimental.multihost_utils": (
        *("assert_equal", "broadcast_one_to_all", "process_allgather", "sync_global_devices"),
    ),
}

POLICY = "asha,objective=score,type=maximize"
EPOCHS = 2

_calls = 0
_depth = 0


def count_collectives(module: str) -> None:
    """Count each call from outside, before a framework takes the functions along."""
    for name in COLLECTIVES[module]:
        call = _counted(getattr(import_module(module), name))
        for place in (module, "torch.distributed.distributed_c10d"):
            if place in sys.modules and hasattr(sys.modules[place], name):
                setattr(sys.modules[place], name, call)


def _counted(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def count(*arguments: Any, **options: Any) -> Any:
        global _calls, _depth  # noqa: PLW0603  one thread trains
        _calls += _depth == 0
        _depth += 1
        try:
            return call(*arguments, **options)
        finally:
            _depth -= 1

    return count


class Epochs:
    """``score`` is epoch + 1 on every rank; a beacon is lit at the end of an epoch, before ours is called."""

    def __init__(self, rank: int, beacon_at: int) -> None:
        self.rank = rank
        self.beacon_at = beacon_at
        self.ended = 0

    def end(self) -> float:
        self.ended += 1
        if self.ended == self.beacon_at:
            witness.light_beacon(self.rank)
        return float(self.ended)


def lightning(epochs: Epochs, planned: int, ours: list[Any], folder: Path, *, is_sharded: bool) -> bool:
    """Train in Lightning, by FSDP where ``is_sharded``; return whether the last checkpoint is that of the end."""
    import torch  # noqa: PLC0415  one framework each
    from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: PLC0415
    from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: PLC0415
    from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: PLC0415
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def configure_model(self):
            if is_sharded:
                fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch, _):
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.001)

    class Score(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.log("val_score", epochs.end(), sync_dist=True)

    sharded = ModelParallelStrategy(  # FSDP by fully_shard; torch's older class refuses a machine without a GPU
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend="gloo"
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=sharded if is_sharded else "ddp",
        max_epochs=planned,
        callbacks=[Score(), *ours, ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
    last = torch.load(folder / "last.ckpt", weights_only=False)
    return last["global_step"] == trainer.global_step and last["epoch"] + 1 == epochs.ended


def transformers(epochs: Epochs, planned: int, ours: list[Any], folder: Path) -> bool:
    """Train by transformers' Trainer."""
    import torch  # noqa: PLC0415  as above
    from transformers import Trainer, TrainingArguments  # noqa: PLC0415

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x, labels):
            output = self.layer(x)
            return {"loss": (output - labels).square().mean(), "logits": output}

    examples = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 8
    trainer = Trainer(
        Model(),
        TrainingArguments(
            folder,
            num_train_epochs=planned,
            per_device_train_batch_size=4,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=examples,
        eval_dataset=examples,
        compute_metrics=lambda _: {"score": epochs.end()},
        callbacks=ours,
    )
    trainer.train()
    return (folder / f"checkpoint-{trainer.state.global_step}" / "trainer_state.json").exists()


def keras(epochs: Epochs, planned: int, ours: list[Any], folder: Path) -> bool:
    """Train by Keras, on the backend that KERAS_BACKEND names."""
    import keras  # noqa: PLC0415  as above
    import numpy as np  # noqa: PLC0415

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = epochs.end()

    x = np.ones((8, 1), "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    path = folder / f"rank{epochs.rank}-{{epoch}}.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    model.fit(x, x, batch_size=4, epochs=planned, verbose=0, callbacks=[Score(), *ours, checkpoint])
    return Path(str(path).format(epoch=epochs.ended)).exists()


def join(framework: str) -> int:
    """Make one of the processes; return the rank."""
    if framework != "keras":
        count_collectives("torch.distributed")
        return int(os.environ["RANK"])
    if os.environ["KERAS_BACKEND"] == "jax":
        from keras_trial import join_jax  # noqa: PLC0415  imports Keras

        count_collectives("jax.experimental.multihost_utils")
        join_jax()
        return int(os.environ["JAX_PROCESS_ID"])
    import torch.distributed as dist  # noqa: PLC0415  as above

    count_collectives("torch.distributed")
    dist.init_process_group("gloo")
    return int(os.environ["RANK"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=["lightning", "fsdp", "transformers", "keras"])
    parser.add_argument("--epochs", type=int, help="only a training with the template's policy, for so many")
    parser.add_argument("--beacon-at", type=int, default=0)
    parser.add_argument("--patient", action="store_true", help="wait longer for an answer")
    arguments = parser.parse_args()
    asking.TIMEOUT_S = 60.0 if arguments.patient else asking.TIMEOUT_S
    asking.PAUSE_FACTOR = 0.0  # an epoch takes a moment here

    rank = join(arguments.framework)
    room = "lightning" if arguments.framework == "fsdp" else arguments.framework
    callback = import_module(f"katib_callbacks.{room}").KatibReportCallback
    trains: Callable[..., bool] = {
        "lightning": functools.partial(lightning, is_sharded=False),
        "fsdp": functools.partial(lightning, is_sharded=True),
        "transformers": transformers,
        "keras": keras,
    }[arguments.framework]
    names = {"score": {"lightning": "val_score", "transformers": "eval_score", "keras": "score"}[room]}

    def train(name: str, *ours: Any, planned: int = EPOCHS) -> dict[str, Any]:
        before, folder, epochs = _calls, witness.FOLDER / name, Epochs(rank, arguments.beacon_at)
        folder.mkdir(exist_ok=True)
        has_last = trains(epochs, planned, list(ours), folder)
        return {"epochs": epochs.ended, "has_last_checkpoint": has_last, "collectives": _calls - before}

    told: dict[str, Any] = {}
    if not arguments.epochs:
        train("first")  # makes groups, and what else is made once
        told["without us"] = train("without")
        told["one epoch"] = train("one", planned=1)
        told["without a policy"] = train("silent", callback(names))
    ours = callback(names, early_stopping=None if arguments.epochs else POLICY)
    told["with a policy"] = train("policy", ours, planned=arguments.epochs or EPOCHS)
    witness.testify(rank, ours.receipt, **told)
    if arguments.framework != "keras" or os.environ["KERAS_BACKEND"] == "torch":
        witness.leave_process_group_at_exit()
    if arguments.framework == "fsdp":
        witness.end_before_gloo_aborts()


if __name__ == "__main__":
    main()
