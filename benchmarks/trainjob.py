"""What a status server that hangs costs a training: the same training with and without it, in turns.

A small Lightning training of some seconds runs with the sink ``trainjob`` at a server that accepts connections and
never answers, and without any sink that shows progress; pairs alternate in order. Measured is ``trainer.fit`` up to the
end of the last epoch, so without the final report, which waits as long as its budget says.

Then what a step's hook costs: without a sink that shows progress, and with one.
"""

import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from figures import Figure, Size, run
from lightning.pytorch import Callback, LightningModule, Trainer
from machine import QuietSink
from torch.utils.data import DataLoader, TensorDataset

from katib_callbacks import KatibReporter
from katib_callbacks.lightning import KatibReportCallback

LIMIT = 1.05
TURNS, EPOCHS = 8, 6
HOOK_CALLS = 200_000


class Module(LightningModule):
    """Computes a little in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 64)

    def training_step(self, batch: Any, _: int) -> Any:
        """Return a loss."""
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Listens(QuietSink):
    """A sink that shows progress to nobody."""

    def progress(self, fraction: Any, remaining_s: Any, latest: Any) -> None:
        """Do nothing."""


class Stopwatch(Callback):
    """Measures a training without its reports."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin."""
        del trainer, pl_module
        self.start_s = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End."""
        del trainer, pl_module
        self.took_s = time.perf_counter() - self.start_s


@contextlib.contextmanager
def hanging_server() -> Iterator[int]:
    """Yield the port of a server that reads and never answers."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):  # when it is shut down
                while True:
                    connections.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()
        if not connections:
            sys.exit("no request reached the server that hangs")


def train(callback: Any, loader: Any, epochs: int, folder: str) -> float:
    """Return the seconds of a training."""
    watch = Stopwatch()
    Trainer(
        max_epochs=epochs,
        callbacks=[watch, callback],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(Module(), loader)
    return watch.took_s


def hook_ns(callback: Any, trainer: Any) -> float:
    """Return the nanoseconds of one call of the step's hook."""
    start_s = time.perf_counter()
    for index in range(HOOK_CALLS):
        callback.on_train_batch_end(trainer, None, None, None, index)
    return (time.perf_counter() - start_s) / HOOK_CALLS * 1e9


class Looks(Callback):
    """Measures hooks in the middle of a training."""

    def __init__(self, **callbacks: Any) -> None:
        self.callbacks = callbacks
        self.ns: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Call each."""
        del pl_module
        for name, callback in self.callbacks.items():
            self.ns[name] = hook_ns(callback, trainer)


def measure(size: Size) -> Iterator[Figure]:
    """Train in pairs, then call hooks."""
    warnings.simplefilter("ignore")
    loader = DataLoader(TensorDataset(torch.linspace(0, 1, 64 * 200).reshape(200, 64)), batch_size=1)
    with tempfile.TemporaryDirectory() as folder, hanging_server() as port:
        os.environ["KUBEFLOW_TRAINER_SERVER_URL"] = f"http://127.0.0.1:{port}/status"

        def with_server() -> float:
            reporter = KatibReporter(sinks=["trainjob"], timeout_s=0.1)
            took_s = train(KatibReportCallback("loss", reporter=reporter), loader, EPOCHS, folder)
            reporter.close()
            return took_s

        def without() -> float:
            reporter = KatibReporter(trial_name="benchmark", sinks=[QuietSink()])
            return train(KatibReportCallback("loss", reporter=reporter), loader, EPOCHS, folder)

        train(Callback(), loader, 1, folder)
        pairs = []
        for turn in range(size(TURNS)):
            first, second = (with_server, without) if turn % 2 else (without, with_server)
            times = {first: first(), second: second()}
            pairs.append((times[with_server], times[without]))
        silent = KatibReportCallback("loss", reporter=KatibReporter(trial_name="benchmark", sinks=[QuietSink()]))
        shown = KatibReportCallback(
            {"shown": "loss"}, reporter=KatibReporter(trial_name="benchmark", sinks=[Listens()])
        )
        looks = Looks(none=Callback(), silent=silent, shown=shown)
        Trainer(
            max_epochs=1,
            callbacks=[silent, shown, looks],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        ).fit(Module(), loader)
    hung_s, free_s = zip(*pairs, strict=True)
    beside = "no server"
    yield Figure("training with a status server that hangs", hung_s, "s", beside, free_s, ratio_at_most=LIMIT)
    none, silent_ns, shown_ns = ([looks.ns[name]] for name in ("none", "silent", "shown"))
    yield Figure("hook of a step, without `trainjob`", silent_ns, "ns", "an empty callback", none)
    yield Figure("hook of a step, with `trainjob`", shown_ns, "ns", "an empty callback", none)


if __name__ == "__main__":
    run(__doc__, measure)
