"""The command of a container whose metrics are collected, as Katib's pod webhook rewrites it.

Command and arguments become one unquoted string for a shell, and only its last command's output is collected: what
breaks on a cluster breaks here. Source: wrapWorkerContainer in pkg/webhook/v1beta1/pod/utils.go.
"""

import re
import shlex
from dataclasses import replace
from pathlib import Path

from katib_callbacks.local.trials.process import shell_log
from katib_callbacks.local.trials.template import ProcessPlan

WRAPPED_COLLECTORS = frozenset({"StdOut", "File", "TensorFlowEvent"})

_SPECIAL = re.compile(r"[^\w@%+=:,./-]")  # to a shell

_SHELLS = frozenset({"sh", "bash"})

_ENDS_WITH_A_LINE_END = (
    "the command ends with an end of line: on a cluster nothing of its output is collected, because the webhook writes "
    "where to collect it on a line after it; end the command without one (in YAML, |- in place of |)."
)


def wrapped(planned: ProcessPlan, placed: ProcessPlan, collector: str, log: Path) -> ProcessPlan:
    """Return the process of that string; a collector that needs no file leaves the process as it is.

    A path that ``placed`` has in place of ``planned`` is quoted, since a cluster has another. The last command's output
    goes to ``log`` for ``StdOut``, the others' to :func:`shell_log`.
    """
    if collector not in WRAPPED_COLLECTORS:
        return placed
    words = [_word(*pair) for pair in zip(planned.command, placed.command, strict=True)]
    shell = ["sh", "-c"]
    if len(words) > 1 and words[0] in _SHELLS and words[1] == "-c":
        shell, words = words[:2], words[2:]
    script = " ".join(words).rstrip("\n")
    if collector == "StdOut":
        other = shlex.quote(str(shell_log(log)))
        script = f"exec >>{other} 2>&1\n{script} 1>>{shlex.quote(str(log))} 2>&1"
    return replace(placed, command=(*shell, script))


def warnings(planned: ProcessPlan, collector: str) -> list[str]:
    """Return what a user should know of a command before it goes to a cluster."""
    if collector != "StdOut" or not planned.command[-1].endswith("\n"):
        return []
    return [_ENDS_WITH_A_LINE_END]


def _word(planned: str, placed: str) -> str:
    is_plain = _SPECIAL.search(planned) is None
    return shlex.quote(placed) if is_plain and placed != planned else placed
