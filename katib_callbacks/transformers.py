"""The callback for the Hugging Face ``transformers`` Trainer.

::

    from katib_callbacks.transformers import KatibReportCallback

    Trainer(..., callbacks=[KatibReportCallback("eval_loss")])
"""

import logging
import math
import re
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

from katib_callbacks.errors import MissingDependencyError
from katib_callbacks.recording.callback import ReportingCallback, callers
from katib_callbacks.recording.shares import share_of_steps
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.settings import Mode
from katib_callbacks.sinks.auto import TRAINJOB

__all__ = ["KatibReportCallback"]


try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingDependencyError('transformers cannot be used: pip install "katib-callbacks[transformers]"') from error

logger = logging.getLogger(__name__)

_MAX_FRAMES = 10
"""How far up the stack the handler is looked for; it calls hooks directly."""

_NUMBERS = frozenset({float, int})
_BOOKKEEPING = frozenset({"epoch", "step", "total_flos", "num_input_tokens_seen", "num_tokens", "step_time"})
"""The last two are TRL's, which shows them of an evaluation as well."""
_BOOKKEEPING_SUFFIXES = ("_runtime", "_per_second", "_model_preparation_time", "_jit_compilation_time")


class KatibReportCallback(ReportingCallback, TrainerCallback):  # type: ignore[misc]  # Any where types are checked
    """Reports the metrics of ``trainer.train()`` to Katib when it has ended; arguments as in ``ReportingCallback``.

    The values are those of ``trainer.state.log_history``: what the Trainer, or ``trainer.log`` in the user's code, put
    there. What is logged at one global step makes one row. A run resumed from a checkpoint begins with the rows of the
    run that wrote it. ``mode`` may be left to ``greater_is_better`` if ``monitor`` is ``metric_for_best_model``; then
    ``load_best_model_at_end`` also makes the row of the loaded model the best one. What ``trainer.evaluate`` and
    ``trainer.predict`` show later is reported as ``after_training`` says. A run that is pruned by
    ``trainer.hyperparameter_search`` reports nothing.
    """

    _is_mode_deferred = True

    _read: int | None = None  # how much of log_history was taken; None unless training
    _first_step: int | None = None
    _awaited: frozenset[str] = frozenset()  # what will be logged for the first time, as far as the arguments tell
    _has_warned_of_filter = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin a run; once more where ``auto_find_batch_size`` begins anew."""
        del control
        if self._is_superfluous():
            self._read = None
            self._recorder.abandon()
            return
        strategies = {"loss": args.logging_strategy, "eval": args.eval_strategy}
        self._awaited = frozenset(kind for kind, strategy in strategies.items() if strategy != "no")
        self._has_warned_of_filter = False
        self._first_step = None
        self._start(args, state)
        self._take(args, state)
        self._first_step = state.global_step
        self._recorder.begin_progress(_share, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show how far the training is, about once a second, where a sink shows it."""
        del args, control
        progress = self._recorder.progress
        if progress is not None and progress.is_due():
            progress.show_share(_share, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take what was logged, from ``log_history``: other callbacks change ``logs``."""
        del control
        if self._read is not None:
            self._take(args, state, logs)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Deliver: the last checkpoint is written and the best model loaded."""
        del control
        if self._read is None:
            return
        self._take(args, state)
        self._read = None
        if state.is_hyper_param_search and not any("train_runtime" in row for row in state.log_history[-1:]):
            self._recorder.abandon()  # the Trainer calls this hook before it raises TrialPruned
        self._recorder.finish(is_kept_wanted=self._keep_loaded(args, state))
        self._recorder.deliver()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        """Report a ``trainer.evaluate`` after training."""
        del args, state, control
        if self._read is None:
            self._recorder.evaluated(metrics, is_validation=any(name.startswith("eval_") for name in metrics))

    def on_predict(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        """Report what was named of a ``trainer.predict`` after training."""
        del args, state, control
        self._recorder.evaluated(metrics, is_validation=False)

    def _excluded(self) -> dict[str, str]:
        """Leave the TrainJob's status to transformers' own callback where there is one: the two would overwrite it."""
        if not any(type(other).__name__ == "KubeflowCallback" for other in _callbacks_beside(self)):
            return {}
        return {TRAINJOB: "transformers' own KubeflowCallback shows this TrainJob's status"}

    def _start(self, args: Any, state: Any) -> None:
        self._read = 0
        rank = framework_rank(is_global_zero=state.is_world_process_zero)
        self._recorder.start(rank, mode=self._mode_of(args), excluded=self._excluded())

    def _take(self, args: Any, state: Any, logs: dict[str, Any] | None = None) -> None:
        """Record what is new in ``log_history``, or ``logs`` where a Trainer's own ``log`` keeps no history."""
        if not self._recorder.is_active:
            return
        rows = state.log_history[self._read :] or ([logs] if logs else [])
        self._read = len(state.log_history)
        for row in rows:
            values = row
            if not _NUMBERS.issuperset(map(type, row.values())):  # the user may go on to change tensors in place
                values = {name: _copied(value) for name, value in row.items()}
            step = row.get("step", state.global_step)
            if "loss" in row:
                if not self._has_warned_of_filter and args.logging_nan_inf_filter:
                    self._warn_of_filter(args, row)
            elif "train_runtime" in row and state.global_step == self._first_step:
                values = _without(values, "train_loss")  # no step was taken: it is a meaningless 0.0
            self._recorder.record(values, row=step, is_awaited=self._is_awaited)
            if self._awaited:
                self._awaited -= {"eval" if str(name).startswith("eval_") else name for name in row}

    def _keep_loaded(self, args: Any, state: Any) -> bool:
        """Hand on the values of the model that was loaded, as they were then; say whether it is the one to report."""
        best_step = self._step_of_loaded_model(args, state)
        if best_step is None:
            return False
        rows = [row for row in state.log_history if row["step"] <= best_step]
        self._recorder.keep({name: value for row in rows for name, value in row.items()})
        return any(row["step"] == best_step for row in rows)

    def _is_awaited(self, name: str) -> bool:
        """Say whether a name may be yet to come: ``train_loss`` does when training is over."""
        return bool(self._awaited) or name == "train_loss" or self._is_bookkeeping(name, ())

    def _warn_of_filter(self, args: Any, row: Mapping[str, Any]) -> None:
        """Say once that a loss is none. With float16, a gradient's norm that is not finite alone is nothing unusual."""
        loss = row["loss"]
        if not isinstance(loss, float):
            return
        norm = row.get("grad_norm", math.nan if loss == 0.0 else 0.0)  # without clipping it may not be logged
        if isinstance(norm, float) and not math.isfinite(norm) and (loss == 0.0 or not args.fp16):
            self._has_warned_of_filter = True
            logger.warning(
                "loss=%s at step %s: it seems that losses were NaN or infinite, and the Trainer left them out. "
                "logging_nan_inf_filter=False in the TrainingArguments shows them.",
                loss,
                row.get("step"),
            )

    def _mode_of(self, args: Any) -> Mode | None:
        """Translate ``greater_is_better``, which is said of ``metric_for_best_model`` alone."""
        if args.greater_is_better is None or not (args.metric_for_best_model is None or self._monitors_the_best(args)):
            return None
        return "max" if args.greater_is_better else "min"

    def _monitors_the_best(self, args: Any) -> bool:
        return self._recorder.monitor in {args.metric_for_best_model, f"eval_{args.metric_for_best_model}"}

    def _step_of_loaded_model(self, args: Any, state: Any) -> int | None:
        """Return whose row is the best one because its model was loaded: the best of those saved, not of all."""
        if not (args.load_best_model_at_end and state.best_model_checkpoint and self._monitors_the_best(args)):
            return None
        step = re.search(r"checkpoint-(\d+)/?$", state.best_model_checkpoint)
        return int(step[1]) if step else None

    @staticmethod
    def _is_bookkeeping(name: str, names: Collection[str]) -> bool:
        """Durations, counters, memory. The learning rate and the gradient's norm are metrics to some."""
        del names
        return name.removeprefix("eval_") in _BOOKKEEPING or name.endswith(_BOOKKEEPING_SUFFIXES) or "_mem_" in name


def _share(state: Any) -> float | None:
    """Return the share of the training that is done; the Trainer counts in optimizer steps, whatever limits it."""
    return share_of_steps(state.global_step, state.max_steps)


def _callbacks_beside(callback: object) -> list[Any]:
    """Return the callbacks of the run that calls ``callback``: the Trainer's handler does not hand them to hooks."""
    for frame in islice(callers(), 1, 1 + _MAX_FRAMES):
        callbacks = getattr(frame.f_locals.get("self"), "callbacks", None)
        if isinstance(callbacks, list) and any(other is callback for other in callbacks):
            return callbacks
    return []


def _copied(value: Any) -> Any:
    """Copy a tensor; leave anything else as it is. A torchmetrics object has ``clone`` and no ``detach``."""
    try:
        return value.detach().clone() if hasattr(value, "detach") and hasattr(value, "clone") else value
    except Exception:  # noqa: BLE001  the recorder says what is no number; the training that logs it goes on
        return value


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in values.items() if other != name}
