"""The callback for the Hugging Face ``transformers`` Trainer.

::

    from katib_callbacks.transformers import KatibReportCallback

    Trainer(..., callbacks=[KatibReportCallback("eval_loss")])
"""

import logging
import math
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from katib_callbacks.errors import MissingDependencyError
from katib_callbacks.recording.callback import ReportingCallback, callbacks_beside
from katib_callbacks.recording.rows import Values
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
    _trial_to_name: str | None = None  # in the Trainer's state, which has another's or none yet
    _first_row = 0  # of log_history that is of this trial
    _first_step: int | None = None  # which this process began at; None until it has
    _is_continued = False  # a training of this very trial, with its rows
    _untrained: tuple[tuple[int, Mapping[str, Any]], ...] = ()  # rows of the model as it was before the first step
    _has_evaluated_training = False
    _validated: Any = ()  # a set of the names that each kind of evaluation showed
    _awaited: frozenset[str] = frozenset()  # what will be logged for the first time, as far as the arguments tell
    _has_warned_of_filter = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin a run; once more where ``auto_find_batch_size`` begins anew."""
        if self._is_superfluous():
            self._read = self._trial_to_name = None
            self._recorder.abandon()
            return
        strategies = {"loss": args.logging_strategy, "eval": args.eval_strategy}
        self._awaited = frozenset(kind for kind, strategy in strategies.items() if strategy != "no")
        self._has_warned_of_filter = self._has_evaluated_training = False
        self._first_step, self._untrained, self._validated = None, (), set()
        rank = framework_rank(is_global_zero=state.is_world_process_zero)
        self._recorder.start(rank, mode=self._mode_of(args), late=() if self._kubeflows() is None else (TRAINJOB,))
        self._read = self._first_row = self._find_own_rows(args, state)
        self._take(args, state)
        self._first_step = state.global_step
        self._trial_to_name = None if state.is_hyper_param_search else self._recorder.trial_name
        self._recorder.begin_progress(_share, state)

    def _find_own_rows(self, args: Any, state: Any) -> int:
        """Return where this trial's rows begin in ``log_history``; those of a trial that it was started from are left.

        The Trainer's state has a name for the trial, and travels in its checkpoints. In a search of the Trainer's own
        it is that one's. A checkpoint without a name, written without this callback, is this trial's own if it lies in
        its own folder.
        """
        trial_name = self._recorder.trial_name
        is_own = trial_name is None or state.is_hyper_param_search or state.trial_name == trial_name
        if state.trial_name is None and not is_own:
            is_own = os.path.isdir(os.path.join(args.output_dir, f"checkpoint-{state.global_step}"))  # noqa: PTH112, PTH118
        if state.log_history and not is_own:
            logger.info(
                "The checkpoint has %d rows of trial %r, which are left behind.",
                len(state.log_history),
                state.trial_name,
            )
        self._is_continued = is_own and state.global_step > 0
        return 0 if is_own else len(state.log_history)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Name the trial in the Trainer's state, now that every callback has seen whose rows a checkpoint had."""
        if self._trial_to_name is not None:
            state.trial_name, self._trial_to_name = self._trial_to_name, None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show how far the training is, about once a second, where a sink shows it."""
        progress = self._recorder.progress
        if progress is not None and progress.is_due():
            progress.show_share(_share, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take what was logged, from ``log_history``: other callbacks change ``logs``."""
        if self._read is not None:
            self._take(args, state, logs)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Deliver: the last checkpoint is written and the best model loaded."""
        if self._read is None:
            return
        self._take(args, state)
        if not self._recorder.has_values:  # no step was taken: there is no better result
            for step, values in self._untrained:
                self._recorder.record(values, row=(None, step, 0))
        self._read = None
        if state.is_hyper_param_search and not any("train_runtime" in row for row in state.log_history[-1:]):
            self._recorder.abandon()  # the Trainer calls this hook before it raises TrialPruned
        self._keep(state)
        is_loaded = bool(args.load_best_model_at_end and state.best_model_checkpoint)
        # A mode that contradicts greater_is_better asks for another row than that of the loaded model.
        decides = self._recorder.report != "best" or (
            self._monitors_the_best(args) and self._recorder.mode == self._mode_of(args)
        )
        self._recorder.finish(is_restored=is_loaded and decides)
        self._take_over()
        self._recorder.deliver()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        """Report a ``trainer.evaluate`` after training; in training rows come by ``on_log``, and it may be the end."""
        if self._read is not None:
            if not self._validated or not self._recorder.selection.has_all:
                self._validated.add(tuple(metrics))
            if self._recorder.may_stop_early and self._recorder.is_to_stop(state.global_step):
                control.should_training_stop = True
        else:
            self._recorder.evaluated(metrics, is_validation=any(name.startswith("eval_") for name in metrics))

    def on_predict(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        """Report what was named of a ``trainer.predict`` after training."""
        self._recorder.evaluated(metrics, is_validation=False)

    def _kubeflows(self) -> Any:
        """Return transformers' own callback for a TrainJob's status; None where there is none."""
        return next((other for other in callbacks_beside(self) if type(other).__name__ == "KubeflowCallback"), None)

    def _take_over(self) -> None:
        """Show the end in the place of transformers' own callback: a status replaces the last one as a whole.

        Its own would lack our names, is tried once only, and comes after ours where it stands behind us.
        """
        progress, other = self._recorder.progress, self._kubeflows()
        if progress is None or TRAINJOB not in progress.late or other is None:
            return
        metrics = getattr(other, "_metrics", {}).items()
        shown = {str(n): value for n, value in metrics if isinstance(value, int | float) and math.isfinite(value)}
        progress.show(None, shown)
        other._initialized = False  # noqa: SLF001  it has no other switch, and turns it on with the next training

    def _take(self, args: Any, state: Any, logs: dict[str, Any] | None = None) -> None:
        """Record what is new in ``log_history``, or ``logs`` where a Trainer's own ``log`` keeps no history."""
        if not self._recorder.is_recording:
            return
        rows = state.log_history[self._read :] or ([logs] if logs else [])
        self._read = len(state.log_history)
        for row in rows:
            step, values = row.get("step", state.global_step), self._values_of(args, state, row)
            if step == self._first_step and not self._is_continued and _is_evaluation(row):
                self._untrained += ((step, values),)
            else:
                self._recorder.record(values, row=(None, step, 0), is_awaited=self._is_awaited)
            if self._awaited:
                self._awaited -= {"eval" if str(name).startswith("eval_") else name for name in row}

    def _values_of(self, args: Any, state: Any, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what counts of a row that was logged."""
        values = row
        if not _NUMBERS.issuperset(map(type, row.values())):  # the user may go on to change tensors in place
            values = {name: _copied(value) for name, value in row.items()}
        if "loss" in row:
            if not self._has_warned_of_filter and args.logging_nan_inf_filter:
                self._warn_of_filter(args, row)
        elif "train_loss" in row:
            if "total_flos" not in row:  # an evaluation with metric_key_prefix="train", and not the summary
                self._has_evaluated_training = True
            elif self._has_evaluated_training or state.global_step == self._first_step:
                return _without(values, "train_loss")  # a running mean; without a step a meaningless 0.0
        return values

    def _keep(self, state: Any) -> None:
        """Hand on the values of the checkpoint that is the best one, as they were at its step."""
        step = re.search(r"checkpoint-(\d+)/?$", state.best_model_checkpoint or "")
        if step is None:
            return
        own = state.log_history[self._first_row :]
        model, at, best = Values(), 0, int(step[1])
        for row in own:
            at = row.get("step", at)  # a Trainer's own ``log`` may leave it out
            if at <= best:
                model.begin((None, at, 0))
                model.take(row)
        if model.key != (None, best, 0):
            return
        summary = own[-1]
        if "total_flos" in summary and not self._has_evaluated_training:
            model.values.setdefault("train_loss", summary["train_loss"])
        self._recorder.keep(model)

    def _is_awaited(self, name: str) -> bool:
        """Return whether a name may be yet to come: ``train_loss`` does when training is over."""
        return bool(self._awaited) or name == "train_loss" or self._is_bookkeeping(name, ())

    def _warn_of_filter(self, args: Any, row: Mapping[str, Any]) -> None:
        """Warn once of a loss that is not finite. With float16, a gradient's norm that is not finite is not unusual."""
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

    def _may_follow(self, name: str) -> bool:
        """Return whether ``trainer.evaluate`` or ``trainer.predict`` may bring this name, with any prefix."""
        prefix, _, rest = name.partition("_")
        if prefix == "eval":
            return not self._validated
        shown = {other.partition("_")[2] for names in self._validated for other in names}
        return "test" in prefix or (prefix != "train" and bool(rest) and rest in shown)

    @staticmethod
    def _may_be_old(name: str) -> bool:
        """Evaluations belong to the model at one step; the loss is a mean of the steps since it was last logged."""
        return name.startswith("eval_")

    @staticmethod
    def _is_bookkeeping(name: str, names: Collection[str]) -> bool:
        """Durations, counters, memory. The learning rate and the gradient's norm are metrics to some."""
        return name.removeprefix("eval_") in _BOOKKEEPING or name.endswith(_BOOKKEEPING_SUFFIXES) or "_mem_" in name


def _share(state: Any) -> float | None:
    """Return the share of the training that is done; the Trainer counts in optimizer steps, whatever limits it."""
    return share_of_steps(state.global_step, state.max_steps)


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    """Return whether a row of ``log_history`` is an evaluation's, of any prefix; the summary of a training is none."""
    return "total_flos" not in row and any(str(name).endswith("_runtime") for name in row)


def _copied(value: Any) -> Any:
    """Copy a tensor; leave anything else as it is. A torchmetrics object has ``clone`` and no ``detach``."""
    try:
        return value.detach().clone() if hasattr(value, "detach") and hasattr(value, "clone") else value
    except Exception:  # noqa: BLE001  the recorder says what is no number; the training that logs it goes on
        return value


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in values.items() if other != name}
