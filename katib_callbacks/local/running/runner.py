"""Stored experiments, created, run and deleted: one process at a time runs one, and holds its lock."""

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError, KatibCallbacksError
from katib_callbacks.local import certificates
from katib_callbacks.local.algorithms.settings import check_installed
from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.plan import ResolvedExperiment, resolve
from katib_callbacks.local.running.controller import Controller, Event
from katib_callbacks.local.running.locks import held
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.trainer.experiment import as_experiment, in_its_words, is_optimization_job, is_train_job
from katib_callbacks.local.trainer.experiment import check as check_trainers
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.orphans import end_orphans
from katib_callbacks.local.trials.process import TERMINATION_GRACE_S
from katib_callbacks.local.trials.template import TrialTemplate

DEFAULT_HOME = Path("katib-local")
"""The folder of state and trials, in the current directory."""

DATABASE = "katib.db"

LOCK_TIMEOUT_S = 30.0
"""How long a runner that was killed may take to let go: its DB manager still commits what it was sent."""

_SEED_BITS = 31
_SUFFIX_BYTES = 3
_LOCK = ".lock"
_NAME = re.compile("[a-z0-9-]+")

_logger = logging.getLogger(__name__)


def database(home: Path) -> Path:
    """Return the SQLite file below a home."""
    return home / DATABASE


@contextmanager
def locked(home: Path, name: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """Hold an experiment's lock; yields its descriptor. Free once all holders have ended; else ExperimentError."""
    if not _NAME.fullmatch(name):  # before it becomes part of a path
        raise ExperimentError(f"{name!r} is not the name of an experiment")
    refusal = f"experiment {name!r} is run by another process"
    with held(home / name / _LOCK, timeout_s=timeout_s, refusal=refusal) as descriptor:
        yield descriptor


def is_run(home: Path, name: str) -> bool:
    """Return whether some process runs an experiment now."""
    try:
        with locked(home, name, timeout_s=0):
            return False
    except ExperimentError:
        return True


class Runner:
    """Runs one experiment that is stored; ``on_event`` is called in the thread that runs.

    ``lock`` is a descriptor of its lock, where the process that started this one has taken it.
    """

    def __init__(
        self, home: Path, name: str, on_event: Callable[[Event], None] = lambda _: None, *, lock: int | None = None
    ) -> None:
        self._home = home
        self._lock = lock
        self.name = name
        self._on_event = on_event
        self._controller: Controller | None = None
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self.error: KatibCallbacksError | None = None
        """Why the thread ended, if it was not meant to."""

    def run(self, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> str:
        """Run the experiment until it is over or :meth:`stop`; does nothing if it is over. Returns its state.

        Blocks. An exception of this thread, KeyboardInterrupt among them, ends the trials, which a later run resumes.

        Raises:
            ExperimentError: No such experiment, or another process runs it.
            KatibCallbacksError: The store or the observation log cannot be read or written.
        """
        with ExperimentStore(database(self._home)) as store:
            store.experiment(self.name)
            taken = nullcontext(self._lock) if self._lock is not None else None
            with taken or locked(self._home, self.name, timeout_s=lock_timeout_s) as lock:
                if store.is_over(self.name) or self._is_stopping:
                    return store.experiment(self.name).state
                controller = Controller(store, self._home, self.name, lock=lock, on_event=self._on_event)
                self._controller = controller
                if self._is_stopping:
                    controller.stop()
                return controller.run()

    def start(self) -> None:
        """Run in a thread of its own."""
        # Loaded now, since Optuna loads it: when the script has ended and its experiment goes on, it cannot be.
        import_module("concurrent.futures.thread")
        self._thread = threading.Thread(target=self._run, name=f"katib-callbacks-experiment-{self.name}", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Make the run end soon; returns at once, and may be called in a signal handler."""
        self._is_stopping = True
        if self._controller is not None:
            self._controller.stop()

    def stop(self) -> None:
        """End the trials and the run, and wait for that. A later run goes on."""
        self.request_stop()
        self.join()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; returns whether it has ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def _run(self) -> None:
        try:
            self.run()
        except KatibCallbacksError as error:
            self.error = error
            _logger.error("experiment %s: %s", self.name, error)  # noqa: TRY400  the message says all


def create(
    home: Path, experiment: object, *, folder: Path, workdir: Path | None = None, gpus_per_trial: int | None = None
) -> tuple[str, tuple[str, ...]]:
    """Check an experiment or an OptimizationJob and store it; returns its name, and what has no effect here.

    ``folder`` has the files that the trials' commands name; without ``workdir`` each trial works in a folder of its
    own.
    """
    name, manifest, plan = admit(experiment)
    for warning in plan.warnings:
        _logger.warning("%s", warning)
    with ExperimentStore(database(home)) as store:
        store.add_experiment(
            name,
            manifest,
            seed=secrets.randbits(_SEED_BITS),
            folder=folder.absolute(),
            workdir=None if workdir is None else (folder / workdir).absolute(),
            gpus_per_trial=gpus_per_trial,
        )
    return name, plan.notes


def admit(experiment: object) -> tuple[str, dict[str, Any], ResolvedExperiment]:
    """Check an experiment, an OptimizationJob or a TrainJob; returns its name, what is stored of it, and its plan."""
    manifest = read(experiment).serialize()
    metadata = manifest["metadata"]
    name: str = metadata.setdefault("name", f"{metadata.get('generateName')}{secrets.token_hex(_SUFFIX_BYTES)}")
    is_trainers = is_optimization_job(manifest) or is_train_job(manifest)
    if is_trainers:
        certificates.check_installed()
        check_trainers(manifest)
    try:
        plan = resolve(as_experiment(manifest))
    except ConfigurationError as error:
        if not is_trainers:
            raise
        raise in_its_words(error, manifest) from error
    check_installed(plan.algorithm)  # now, and not in the thread or process that runs it
    return name, manifest, plan


def stop(home: Path, name: str) -> bool:
    """End the trials of an experiment that another process runs, so that it can be resumed; returns whether one did."""
    with ExperimentStore(database(home)) as store:
        store.experiment(name)
        was_run = is_run(home, name)
        if was_run:
            with _ended(store, home, name):
                pass
    return was_run


def delete(home: Path, name: str) -> None:
    """Delete an experiment with its trials, rows and folder; one that runs is ended first, or ExperimentError."""
    with ExperimentStore(database(home)) as store, _ended(store, home, name):
        unfinished = store.unfinished_trials(name)
        end_orphans(
            [mark for trial in unfinished for mark in trial.attempts],
            [TrialFiles(home, name, trial.name).logs for trial in unfinished],
        )
        store.delete_experiment(name)
        with suppress(OSError):
            shutil.rmtree(home / name)


@contextmanager
def _ended(store: ExperimentStore, home: Path, name: str) -> Iterator[None]:
    """Ask an experiment's runner to end, and hold its lock; ExperimentError if it does not end in time."""
    grace_s = TrialTemplate.of(store.experiment(name).manifest).grace_s
    timeout_s = LOCK_TIMEOUT_S + (TERMINATION_GRACE_S if grace_s is None else grace_s)
    store.update_experiment(name, delete_by_s=time.time() + timeout_s)
    try:
        with locked(home, name, timeout_s=timeout_s):
            store.update_experiment(name, delete_by_s=None)  # a run that waits for the lock goes on
            yield
    finally:
        store.update_experiment(name, delete_by_s=None)
