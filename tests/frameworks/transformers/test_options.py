"""The options, as a real training shows them."""

import subprocess
import sys
import textwrap

from katib_callbacks.transformers import KatibReportCallback

NAN = float("nan")


def test_nothing_is_missed_that_is_logged_less_often_or_at_the_end(make_trainer, rows, warnings_of):
    callback = KatibReportCallback(["loss", "eval_accuracy", "train_loss", "train_runtime"], report="history")
    options = {"logging_strategy": "steps", "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 6}
    make_trainer(callback, num_train_epochs=6, **options).train()
    options |= {"logging_steps": 6, "eval_steps": 1}
    make_trainer(callback, num_train_epochs=6, **options).train()
    assert warnings_of() == []


def test_a_trainer_that_is_not_rank_zero_is_silent(make_trainer, rows):
    callback = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(callback)
    trainer.is_world_process_zero = lambda: False
    trainer.train()
    trainer.evaluate()
    assert rows() == []


def test_outside_a_trial_grpc_is_not_even_imported(tmp_path):
    script = """
        import sys
        import torch
        from transformers import Trainer, TrainingArguments
        from katib_callbacks.transformers import KatibReportCallback

        class Model(torch.nn.Linear):
            def forward(self, x, labels=None):
                logits = super().forward(x)
                return {"loss": logits.sum(), "logits": logits}

        data = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 2
        arguments = TrainingArguments(sys.argv[1], num_train_epochs=1, report_to="none", use_cpu=True)
        Trainer(Model(1, 1), arguments, train_dataset=data, callbacks=[KatibReportCallback()]).train()
        print("grpc" in sys.modules, "katib_callbacks.wire.messages" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
