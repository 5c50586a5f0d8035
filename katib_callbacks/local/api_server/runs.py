"""Experiments that the API started: each in a process of its own, which outlives the server that started it."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from katib_callbacks.errors import ExperimentError, KatibCallbacksError
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.own_process import own_command
from katib_callbacks.local.state import states
from katib_callbacks.local.state.states import condition, with_condition
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore

MAX_STARTS = 3
"""How often one server starts an experiment whose process ends before it does."""

INTERRUPTED = "ExperimentInterrupted"

_LOCK_TIMEOUT_S = 1.0
"""Whoever asks whether an experiment is run has its lock for a moment."""

_MARK = ".api-server"
_LOG = "runner.log"
_MAX_WORDS = 500

_logger = logging.getLogger(__name__)


class Runs:
    """The processes of a home's experiments, those among them that other commands started."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, int] = {}
        self._left: set[str] = set()

    def start(self, name: str) -> None:
        """Start an experiment's process, with its lock, and remember that the API did; one that runs is left to run."""
        folder = self._home / name
        with suppress(ExperimentError), runner.locked(self._home, name, timeout_s=_LOCK_TIMEOUT_S) as lock:
            (folder / _MARK).touch()
            with (folder / _LOG).open("ab") as output:
                self._processes[name] = subprocess.Popen(  # noqa: S603  this very module
                    own_command(__name__, str(self._home), name, str(lock)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(lock,),
                )

    def look_after(self) -> None:
        """Go on with experiments of the API that nobody runs, and say of others that they were interrupted."""
        for name in [name for name, process in self._processes.items() if process.poll() is not None]:
            del self._processes[name]
        with ExperimentStore(runner.database(self._home)) as store:
            rows = store.experiments(has_train_jobs=True)
            unfinished = [row for row in rows if row.state not in states.FINAL_EXPERIMENT_STATES]
            left = {row.name for row in unfinished if not self._is_run(row)}
            for row in unfinished:
                if row.name in left & self._left:  # twice: it may have been about to begin
                    self._take_up(store, row)
        self._left = left

    def _is_run(self, row: ExperimentRow) -> bool:
        process = self._processes.get(row.name)
        return (process is not None and process.poll() is None) or runner.is_run(self._home, row.name)

    def _take_up(self, store: ExperimentStore, row: ExperimentRow) -> None:
        starts = self._starts.get(row.name, 0)
        is_ours = (self._home / row.name / _MARK).exists()
        if is_ours and starts < MAX_STARTS:
            self._starts[row.name] = starts + 1
            _logger.warning("experiment %s: no process runs it; it is started again", row.name)
            self.start(row.name)
        elif is_ours and row.started_s is None:
            log = self._home / row.name / _LOG
            message = f"The experiment could not be started; its process has ended each time: {_last_line(log)}"
            with store.editing(row.name) as (now, columns):
                if now.conditions == row.conditions:
                    conditions = with_condition(row.conditions, states.FAILED, "ExperimentFailed", message)
                    columns.update(conditions=conditions, completed_s=time.time())
        elif row.conditions[-1]["reason"] != INTERRUPTED:
            message = (
                "No process runs the experiment. Go on with: katib-callbacks experiment resume "
                f"{row.name} --home {self._home}"
            )
            told = condition(row.state, INTERRUPTED, message, row.conditions[-1]["lastTransitionTime"], status=False)
            with store.editing(row.name) as (now, columns):
                if now.conditions == row.conditions:
                    columns["conditions"] = [*row.conditions[:-1], told]


def _last_line(log: Path) -> str:
    """Return the last words of a process, and where the others are."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    return f"{next((line for line in reversed(lines) if line.strip()), 'it said nothing')[-_MAX_WORDS:]} (see {log})"


def main() -> None:
    """Run a stored experiment to its end, or until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    home, name, lock = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    running = runner.Runner(home, name, lock=lock)
    signals: list[int] = []

    def stop(number: int, _frame: object) -> None:
        signals.append(number)
        running.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        state = running.run()
    except KatibCallbacksError as error:
        _logger.error("experiment %s: %s", name, error)  # noqa: TRY400  the message says all
        os._exit(1)
    is_stopped = state not in states.FINAL_EXPERIMENT_STATES and not signals
    if is_stopped:  # by `experiment stop`: it is not to go on by itself
        (home / name / _MARK).unlink(missing_ok=True)
