"""An experiment in which trials end in every way."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "local"))

from homes import SUBMITTED, Local, experiment, wait_until

__all__ = ["HOSTILE", "STDOUT", "SUBMITTED", "Local", "experiment", "mixed", "wait_until"]

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"

MIXED = """
import os, pathlib, sys
submitted = pathlib.Path(os.environ["KATIB_CALLBACKS_SUBMIT_DIR"])
number = len(list(submitted.glob("begun-*")))
(submitted / f"begun-{number}").touch()
print("parameter", os.environ["X"], flush=True)
if number == 1:
    sys.exit("out of memory: <b>not bold</b>")
if number == 2:
    sys.exit(0)
for epoch in range(5):
    print(f"loss={1 / (epoch + 1)}", flush=True)
"""
"""The first trial succeeds, the second one fails, and the third one reports nothing."""

STDOUT = {"collector": {"kind": "StdOut"}}


def mixed(name="mixed"):
    """Return an experiment of such trials, with a parameter that would like to be markup."""
    parameters = [{"name": "x", "parameterType": "categorical", "feasibleSpace": {"list": [HOSTILE]}}]
    budget = {"maxTrialCount": 3, "parallelTrialCount": 1, "maxFailedTrialCount": 3}
    return experiment(MIXED, name, parameters=parameters, metricsCollectorSpec=STDOUT, **budget)
