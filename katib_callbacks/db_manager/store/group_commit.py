"""Group commit: one transaction, and one sync of the disk, for all batches that came while the last one was written.

A single thread writes. Each caller waits until its batch is committed, and a hundred callers share one sync.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

from katib_callbacks.db_manager.store.table import Log, Row, Span
from katib_callbacks.errors import StoreError

MAX_GROUP_BATCHES = 256
MAX_GROUP_ROWS = 4_096
"""When a group takes no further batch. Bounds the statement that asks for stored rows, and how long others wait."""

QUIET_S, GATHER_S = 0.003, 0.015
"""Where the last group had several batches, the next one waits for further ones until none has come for the first time,
about what a sync of a disk takes, and at most for the second. A group of a few costs nearly as much as one of dozens:
a transaction, a sync and changes of threads. Whoever reports alone never waits."""


class Work:
    """A call's part of a group, ``rows`` to be written, and what became of it."""

    __slots__ = ("_pending", "error", "following", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.error: BaseException | None = None
        self._pending = threading.Lock()  # held until the end is known: half the cost of an Event, ten thousand times
        self._pending.acquire()
        self.following: Work | None = None
        """What :meth:`wait` finishes next. A hundred threads that are woken at once would fight for the interpreter."""

    def finish(self) -> None:
        """Let :meth:`wait` return."""
        self._pending.release()

    def wait(self) -> None:
        """Block until it is committed or contended; StoreError if it was not stored, as far as is known."""
        self._pending.acquire()
        following, self.following = self.following, None  # lest one keep all
        if following is not None:
            following.finish()
        if isinstance(self.error, StoreError):
            raise type(self.error)(str(self.error)) from self.error  # one of its own for each caller
        if self.error is not None:
            raise self.error


class Batch(Work):
    """The rows of one call, all of one trial, and its caller's namespace where it has one."""

    __slots__ = ("is_contended", "logs", "namespace", "span", "trial_name")

    def __init__(self, trial_name: str, logs: Sequence[Log], namespace: str | None = None) -> None:
        super().__init__(len(logs))
        self.trial_name = trial_name
        self.namespace = namespace
        self.logs = logs
        self.span = Span(trial_name, min(logs)[0], max(logs)[0])
        self.is_contended = False
        """Set where another manager was writing the trial: nothing was tried."""


W = TypeVar("W", bound=Work)


class GroupCommit(Generic[W]):
    """A thread that writes batches in groups.

    ``write`` writes batches in one transaction, and returns when it is committed; if it raises, no batch of the group
    counts as stored. After one of the ``refusals``, which come from the rows, each batch is written by itself, so that
    one of them does not fail the others.
    """

    def __init__(self, write: Callable[[Sequence[W]], None], *, refusals: tuple[type[BaseException], ...]) -> None:
        self._write = write
        self._refusals = refusals
        self._queue: queue.SimpleQueue[W | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_crowded = False
        self._thread = threading.Thread(target=self._run, name="katib-callbacks-writer", daemon=True)
        self._thread.start()

    def submit(self, batch: W) -> None:
        """Queue a batch; StoreError if the store is closed. Its ``wait`` must be called: it wakes those behind it."""
        with self._lock:
            if self._is_closed:
                raise StoreError("the store is closed")
            self._queue.put(batch)

    def close(self) -> None:
        """Write what is queued, and end the thread. May be called twice."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._finish(group)
            del group  # nothing of a call is kept while waiting for the next one

    def _next_group(self) -> list[W]:
        """Return what is waiting, at least one batch; nothing at the end."""
        group = self._gather(self._queue.get(), time.monotonic() + GATHER_S if self._is_crowded else 0.0)
        self._is_crowded = len(group) > 1
        return group

    def _gather(self, batch: W | None, until_s: float) -> list[W]:
        group: list[W] = []
        rows = before = 0
        while batch is not None:
            group.append(batch)
            rows += batch.rows
            if len(group) >= MAX_GROUP_BATCHES or rows >= MAX_GROUP_ROWS:
                return group
            if self._queue.empty() and len(group) > before and time.monotonic() < until_s:
                before = len(group)
                time.sleep(QUIET_S)
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # found behind them: the end comes after this group
        return group

    def _finish(self, group: Sequence[W]) -> None:
        try:
            self._write(group)
        except self._refusals as error:
            if len(group) == 1:
                group[0].error = error
            else:
                for batch in group:
                    self._finish([batch])
                return
        except BaseException as error:  # noqa: BLE001  it is the callers' to raise, and this thread must live on
            for batch in group:
                batch.error = error
        for batch, following in pairwise(group):
            batch.following = following
        group[0].finish()


def missing_logs(batches: Sequence[Batch], stored: Iterable[Row]) -> list[tuple[str, Sequence[Log]]]:
    """Return the rows to add for every batch to be there: of equal rows as many as the batch has more than ``stored``.

    So a row that is in a batch twice is stored twice, and a batch that comes again is not.
    """
    present: dict[str, Counter[Log]] = {}
    for trial_name, time_, metric_name, value in stored:
        present.setdefault(trial_name, Counter())[time_, metric_name, value] += 1
    batches_of = Counter(batch.trial_name for batch in batches)
    missing: list[tuple[str, Sequence[Log]]] = []
    for batch in batches:
        there = present.get(batch.trial_name)
        if there is None:  # nothing can be there already, as for nearly every batch: its rows are not compared
            missing.append((batch.trial_name, batch.logs))
            if batches_of[batch.trial_name] > 1:
                present[batch.trial_name] = Counter(batch.logs)
            continue
        seen: Counter[Log] = Counter()
        new = []
        for log in batch.logs:
            seen[log] += 1
            if seen[log] > there[log]:
                there[log] += 1
                new.append(log)
        if new:
            missing.append((batch.trial_name, new))
    return missing
