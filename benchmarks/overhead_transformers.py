"""transformers for ``overhead.py``.

The Trainer shows its metrics in dicts, two an epoch: one with the loss and one with the evaluation. One read is the
loop by which the integrations that come with transformers take the numbers out of such a dict.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

DATA = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([float(i)])} for i in range(4)]
SCORES = "abcdef"


class Model(torch.nn.Linear):
    """Returns a loss beside its output."""

    def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
        """Return both."""
        logits = super().forward(x)
        return {"loss": (logits - labels).square().mean(), "logits": logits}


class Quiet(Trainer):
    """Calls the hooks of saving, and saves nothing: Ray's callback reports there."""

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        pass


class Reads(TrainerCallback):
    """Reads each dict once, where our callback does."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Read."""
        del args, state, control
        self.seen = {}
        for name, value in logs.items():
            if isinstance(value, (int, float)):
                self.seen[name] = value
            elif isinstance(value, torch.Tensor) and value.numel() == 1:
                self.seen[name] = value.item()


class Framework:
    """See ``overhead.Framework``."""

    HOOKS = ("on_epoch_begin", "on_epoch_end", "on_log", "on_evaluate", "on_save")
    NAMES = ("loss", "grad_norm", "learning_rate", "eval_loss", *(f"eval_{name}" for name in SCORES))
    MONITOR = "eval_loss"
    RAY = "train"

    def yardsticks(self) -> dict[str, Any]:
        """Return the read and the empty callback."""
        return {"a loop over logs, twice": Reads(), "an empty callback": TrainerCallback()}

    def callback_class(self) -> type:
        """Return our callback."""
        from katib_callbacks.transformers import KatibReportCallback  # noqa: PLC0415

        return KatibReportCallback

    def optuna(self, trial: Any) -> str:
        """Say that there is none."""
        del trial
        return "it has no callback for transformers, which call it themselves in hyperparameter_search"

    def mlflow(self, run_id: str, stack: ExitStack) -> Callable[[], Any]:
        """Return the callback that transformers have for MLflow."""
        del run_id, stack
        from transformers.integrations import MLflowCallback  # noqa: PLC0415

        return MLflowCallback

    def ray(self) -> Callable[[], Any]:
        """Return Ray's callback."""
        from ray.train.huggingface.transformers import RayTrainReportCallback  # noqa: PLC0415

        return RayTrainReportCallback

    def train(self, callback: Any, epochs: int, turn: int, folder: Path) -> None:
        """Train once."""
        del turn
        trainer = Quiet(
            model=Model(1, 1),
            args=TrainingArguments(
                output_dir=str(folder / "output"),
                num_train_epochs=epochs,
                per_device_train_batch_size=len(DATA),
                eval_strategy="epoch",
                logging_strategy="epoch",
                save_strategy="epoch",
                learning_rate=1e-6,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=DATA,
            eval_dataset=DATA,
            compute_metrics=lambda _: dict.fromkeys(SCORES, 0.5),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
