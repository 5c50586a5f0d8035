"""All objects as they are now, and the events that led there: in order, each once, with Kubernetes' resourceVersions.

A resourceVersion is the number of a change in the store's own log, times ``_STEP``, and a count of the objects of one
resource that the change touched. So it is the same after a server's restart, and a watch can go on where it was.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.local.api_server.history.change_log import Change, ChangeLog
from katib_callbacks.local.api_server.resources.resource import Key, Object, Resource, Snapshot, View
from katib_callbacks.local.state.store import ExperimentRow, TrialRow

MAX_EVENTS = 5_000
"""Of one resource, that can be watched from the past; from before them a watch is answered 410."""

_MAX_SHOWN = 200
"""So many of a resource's last events keep what they show; an older one makes it anew for who asks."""

POLL_INTERVAL_S = 0.05

_STEP = 64

_logger = logging.getLogger(__name__)

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


@dataclass
class Entry:
    """An object at one version."""

    resource: Resource
    view: View
    version: int
    _object: Object | None = field(default=None, repr=False)
    _is_kept: bool = True

    def forget(self) -> None:
        """Keep the object no longer."""
        self._object, self._is_kept = None, False

    @property
    def object(self) -> Object:
        """The object; not to be changed."""
        shown = self._object or self._shown()
        if self._is_kept:
            self._object = shown
        return shown

    def _shown(self) -> Object:
        shown = self.view.shown()
        metadata = {"namespace": self.view.key[0], **shown["metadata"], "resourceVersion": str(self.version)}
        if not self.resource.is_namespaced:
            del metadata["namespace"]
        metadata.setdefault("generation", 1)
        kind = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        return {**kind, **shown, "metadata": metadata}


class Event(NamedTuple):
    """An object, and how it came to be so."""

    kind: str
    entry: Entry


class TooOldError(Exception):
    """The events from there on are no longer kept."""


class _Stream:
    """The objects of one resource, and their events."""

    def __init__(self, resource: Resource, version: int) -> None:
        self.entries = {view.key: Entry(resource, view, version) for view in resource.fixed}
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.since = version

    def add(self, event: Event) -> None:
        if len(self.events) == MAX_EVENTS:
            self.since = self.events[0].entry.version
        self.events.append(event)
        if len(self.events) > _MAX_SHOWN:
            self.events[-_MAX_SHOWN - 1].entry.forget()


class Journal:
    """Objects and events of all resources; lives in one thread, that of the event loop."""

    def __init__(self, path: Path, table: Iterable[Resource]) -> None:
        self._log = ChangeLog(path)
        self._home = path.parent
        self._signal = asyncio.Event()
        self._snapshots: dict[str, Snapshot] = {}
        self._seen: int | None = None
        now, changes = self._log.state()
        rows = {(type(row), row.name): row for row in now}
        for change in reversed(changes):  # back to where the log begins
            if change.later is not None:
                rows.pop((type(change.later), change.later.name), None)
            if change.earlier is not None:
                rows[type(change.earlier), change.earlier.name] = change.earlier
        self._number = changes[0].version - 1 if changes else 0
        self._streams = {resource: _Stream(resource, self.version) for resource in table}
        for one in sorted(rows.values(), key=lambda row: isinstance(row, TrialRow)):
            self._apply(Change(self._number, None, one), is_silent=True)
        for change in changes:
            self._apply(change)

    def close(self) -> None:
        """Close the store."""
        self._log.close()

    @property
    def version(self) -> int:
        """The resourceVersion of everything together."""
        return (self._number + 2) * _STEP - 1

    def entries(self, resource: Resource) -> Mapping[Key, Entry]:
        """Return the objects of a resource."""
        return self._streams[resource].entries

    def events(self, resource: Resource, since: int) -> list[Event]:
        """Return the events of a resource after a resourceVersion; TooOldError if some of them are gone."""
        stream = self._streams[resource]
        if not stream.since <= since <= self.version:
            raise TooOldError
        later = takewhile(lambda event: event.entry.version > since, reversed(stream.events))
        return list(later)[::-1]

    def refresh(self) -> None:
        """Take note of what has been committed by now."""
        seen = self._log.version()
        if seen == self._seen:
            return
        self._seen = seen
        changes = self._log.changes(self._number)
        for change in changes:
            self._apply(change)
        if changes:
            signal, self._signal = self._signal, asyncio.Event()
            signal.set()

    async def changed(self, timeout_s: float) -> None:
        """Wait for the next change, or for some time."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._signal.wait(), timeout_s)

    async def follow(self) -> None:
        """Take note of changes, until cancelled."""
        while True:
            try:
                self.refresh()
            except KatibCallbacksError as error:
                _logger.error("changes cannot be read: %s", error)  # noqa: TRY400  the message says all
            await asyncio.sleep(POLL_INTERVAL_S)

    def _apply(self, change: Change, *, is_silent: bool = False) -> None:
        """Take a change in; of a deleted experiment those of its trials come first."""
        row = change.later or change.earlier
        assert row is not None  # noqa: S101  a change of something
        name = row.experiment if isinstance(row, TrialRow) else row.name
        before = self._snapshots.get(name)
        if isinstance(row, TrialRow):
            snapshot = self._snapshots[name]
            self._snapshots[name] = snapshot.without(row) if change.later is None else snapshot.put(row)
        elif change.later is None:
            del self._snapshots[name]
        else:
            self._snapshots[name] = before._replace(row=row) if before else Snapshot(row, self._home)
        after = self._snapshots.get(name)
        self._number = change.version
        for resource, stream in self._streams.items():
            old, new = _views(resource, before, change.earlier), _views(resource, after, change.later)
            self._compare(resource, stream, old, new, is_silent=is_silent)

    def _compare(
        self, resource: Resource, stream: _Stream, old: dict[Key, View], new: dict[Key, View], *, is_silent: bool
    ) -> None:
        count = 0
        for key in dict.fromkeys((*old, *new)):
            earlier, view = old.get(key), new.get(key)
            if earlier is not None and view is not None and earlier.stamp == view.stamp:
                continue
            version = (self._number + 1) * _STEP + min(count, _STEP - 1)  # 0 has a meaning of its own
            count += 1
            if view is not None:
                kind = MODIFIED if key in stream.entries else ADDED
                entry = stream.entries[key] = Entry(resource, view, version)
            else:
                if stream.entries.pop(key, None) is None or earlier is None:
                    continue
                kind, entry = DELETED, Entry(resource, earlier, version)
            if not is_silent:
                stream.add(Event(kind, entry))


def _views(resource: Resource, snapshot: Snapshot | None, row: ExperimentRow | TrialRow | None) -> dict[Key, View]:
    """Return what of a resource a changed row comes to."""
    if snapshot is None:
        return {}
    of_trial = resource.of_trial(snapshot, row) if isinstance(row, TrialRow) else ()
    return {view.key: view for view in (*resource.of_experiment(snapshot), *of_trial)}
