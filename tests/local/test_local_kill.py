"""SIGKILL at any moment, from a seed: of trials, of the runner, of its DB manager. Then the books must balance."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from homes import Local, experiment

pytestmark = [
    pytest.mark.skipif(
        not Path("/proc/self/environ").exists(), reason="only Linux shows which processes a runner left"
    ),
    pytest.mark.long,
]

TRIALS = 10
KINDS = ("trial", "runner", "DB manager")
KILLS = 14
"""At most; the first three are one of each kind."""

# Two reports, and a ledger of what was acknowledged: which attempt, and its own random number.
CODE = """
import json, os, pathlib, time
from katib_callbacks import report_metrics
trial, mark = os.environ["KATIB_TRIAL_NAME"], os.environ["KATIB_CALLBACKS_LOCAL_ATTEMPT"]
number = int.from_bytes(os.urandom(4), "big")
with open(pathlib.Path(os.environ["KATIB_CALLBACKS_SUBMIT_DIR"], "ledger", trial), "a") as ledger:
    for metrics in ({"loss": float(os.environ["X"])}, {"number": number}):
        report_metrics(metrics)
        print(json.dumps([mark, metrics]), file=ledger, flush=True)
        time.sleep(0.1)
"""


def processes(matches):
    """Return the numbers of the processes whose command line and environment ``matches``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if matches(command, (folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return sorted(found)


class Victims:
    def __init__(self, home, chance):
        self._home = str(home).encode()
        self._chance = chance
        self._plan = [*chance.sample(KINDS, len(KINDS)), *chance.choices(KINDS, [2, 1, 1], k=KILLS - len(KINDS))]
        self.killed = []

    def kill(self, runner):
        """Kill one process of the kind that is next; nothing if none of it runs at the moment, or no kind is left."""
        if len(self.killed) < KILLS and self._kill(self._plan[len(self.killed)], runner):
            self.killed.append(self._plan[len(self.killed)])

    def _kill(self, kind, runner):
        if kind == "runner":
            is_running = runner.poll() is None
            runner.kill()
            return is_running
        ours = b"HOME_OF_TEST=" + self._home
        mark = b"KATIB_CALLBACKS_LOCAL_ATTEMPT="
        if kind == "trial":
            pids = processes(lambda _, environ: ours in environ and any(one.startswith(mark) for one in environ))
        else:
            pids = processes(lambda command, environ: ours in environ and b".db_manager_process" in command)
        if not pids:
            return False
        try:
            os.kill(self._chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def command(*arguments, home):
    return [sys.executable, "-m", "katib_callbacks.cli", "experiment", *arguments, "--home", str(home)]


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_the_books_balance_after_kills_of_every_kind(tmp_path, seed):
    chance = random.Random(seed)  # noqa: S311  no secret
    home = tmp_path / "home"
    (tmp_path / "ledger").mkdir()
    path = tmp_path / "one.yaml"
    one = experiment(CODE, maxTrialCount=TRIALS, parallelTrialCount=3)
    one["spec"]["objective"]["additionalMetricNames"] = ["number"]
    path.write_text(yaml.safe_dump({"kind": "Experiment", **one}))
    environ = {**os.environ, "HOME_OF_TEST": str(home)}

    victims = Victims(home, chance)
    arguments = ["run", str(path)]
    while True:
        with (tmp_path / "output").open("a") as output:
            runner = subprocess.Popen(
                command(*arguments, home=home), cwd=tmp_path, env=environ, stdout=output, stderr=output
            )
        while runner.poll() is None:
            time.sleep(chance.uniform(0.05, 0.6))
            victims.kill(runner)
        if runner.wait() == 0:
            break
        assert runner.returncode == -signal.SIGKILL, (tmp_path / "output").read_text()
        arguments = ["resume", "one"] if is_stored(home) else arguments
    assert set(victims.killed) == set(KINDS), "otherwise this shows nothing"
    assert processes(lambda _, environ: b"HOME_OF_TEST=" + str(home).encode() in environ) == []

    local = Local(home, tmp_path)
    trials = local.trials()
    output = (tmp_path / "output").read_text()
    assert [trial.number for trial in trials] == list(range(TRIALS)), output
    assert {trial.state for trial in trials} <= {"Succeeded", "Failed"}, (
        "each in one final state, and none for no reason"
    )
    assert {path.name for path in (tmp_path / "ledger").iterdir()} <= {trial.name for trial in trials}
    for trial in trials:
        finals = [one for one in trial.conditions if one["type"] not in {"Created", "Running"}]
        assert len(finals) == 1
        if trial.state == "Failed":
            assert "killed by SIGKILL" in finals[0]["message"]
        check_rows(local, trial, tmp_path / "ledger" / trial.name)
    assert sorted(event for trial in trials for event in (trial.asked, trial.told)) == list(range(2 * TRIALS))

    again = subprocess.run(
        command("resume", "one", home=home), cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert local.trials() == trials, "resuming once more changes nothing"


def is_stored(home):
    listed = subprocess.run(command("list", home=home), capture_output=True, text=True, check=False)
    return "\none " in listed.stdout


def check_rows(local, trial, ledger):
    """Compare what the DB manager holds with what it acknowledged to the trial's last attempt."""
    entries = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    expected = [
        (name, float(value))
        for mark, metrics in entries
        if mark == trial.attempts[-1]
        for name, value in metrics.items()
    ]
    stored = [(name, float(value)) for name, value in local.rows(trial.name)]
    if trial.state == "Succeeded":
        assert stored == expected
        assert [name for name, _ in stored] == ["loss", "number"]
    else:
        # Killed between a report's reply and its line in the ledger: one row more at most.
        assert stored[: len(expected)] == expected
        assert len(stored) <= len(expected) + 1
