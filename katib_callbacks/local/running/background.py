"""Experiments that run in threads of this process, and what becomes of them when it ends."""

import atexit
import sys
import time
import weakref
from pathlib import Path

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.running.runner import Runner, database, is_run
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentStore

_RESTART_INTERVAL_S = 0.05

_runners: "weakref.WeakSet[Runner]" = weakref.WeakSet()


class BackgroundRunners:
    """The runners that one client has started, by their experiments."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._runners: dict[str, Runner] = {}

    def start(self, name: str) -> None:
        """Run an experiment in a thread of its own."""
        started = self._runners[name] = Runner(self._home, name)
        _runners.add(started)
        started.start()

    def restart(self, name: str) -> None:
        """Start an experiment again, unless the runner that waits for its last trials takes note of it."""
        while self.is_run(name):
            with ExperimentStore(database(self._home)) as store:
                if store.experiment(name).state != states.RESTARTING:
                    return
            time.sleep(_RESTART_INTERVAL_S)
        self.start(name)

    def is_run(self, name: str) -> bool:
        """Return whether an experiment is run, by this process or another one."""
        own = self._runners.get(name)
        return (own is not None and not own.join(0)) or is_run(self._home, name)

    def wait(self, name: str, timeout_s: float) -> None:
        """Wait a while, or until an experiment ends here; ExperimentError if it is not over and nobody runs it."""
        own = self._runners.get(name)
        if own is not None and not own.join(timeout_s):
            return
        if own is not None and own.error is not None:
            raise ExperimentError(f"experiment {name!r} has stopped: {own.error}") from own.error
        with ExperimentStore(database(self._home)) as store:
            if store.experiment(name).state in states.FINAL_EXPERIMENT_STATES:
                return
        if not is_run(self._home, name):
            raise ExperimentError(f"no process runs experiment {name!r}; resume it")
        time.sleep(timeout_s)

    def stop(self, name: str) -> None:
        """End an experiment that runs here."""
        running = self._runners.pop(name, None)
        if running is not None:
            running.stop()

    def close(self) -> None:
        """End the experiments that run here, and wait for that."""
        for running in self._runners.values():
            running.stop()


@atexit.register
def _finish() -> None:
    """Wait for what still runs when the script has ended; after an exception end it, to be resumed."""
    has_failed = getattr(sys, "last_type", None) is not None
    for one in list(_runners):
        if has_failed:
            one.stop()
            continue
        try:
            one.join()
        except KeyboardInterrupt:
            has_failed = True
            one.stop()
