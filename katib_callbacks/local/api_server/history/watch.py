"""A watch: the events of a resource from some version on, as lines of JSON, until the client has enough."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from katib_callbacks.local.api_server.history.journal import ADDED, DELETED, MODIFIED, Event, Journal, TooOldError
from katib_callbacks.local.api_server.protocol.errors import expired
from katib_callbacks.local.api_server.protocol.selectors import Selector
from katib_callbacks.local.api_server.resources.resource import Key, Object, Resource

BOOKMARK_INTERVAL_S = 30.0
_LONGEST_SLEEP_S = 0.5


@dataclass
class Watch:
    """A client's watch.

    Args:
        namespace: The one; None for all.
        since: The resourceVersion after which it begins; None for the objects as they are, and then.
        shown: What a client gets of an object: itself, or a table of it.
        is_initial: Whether objects as they are come first, and a bookmark ends them.
    """

    resource: Resource
    namespace: str | None
    selector: Selector
    shown: Callable[[Object], Object]
    since: int | None
    has_bookmarks: bool
    is_initial: bool
    timeout_s: float

    async def lines(self, journal: Journal, is_stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the events, each a line."""
        loop = asyncio.get_running_loop()
        end_s, bookmark_s = loop.time() + self.timeout_s, loop.time() + BOOKMARK_INTERVAL_S
        seen: set[Key] = set()  # chosen, as the client knows it: a label may have changed
        version = self.since
        if version is None:
            version = journal.version
            for entry in sorted(journal.entries(self.resource).values(), key=lambda entry: entry.view.key):
                if self._is_chosen(entry.view.key, entry.object):
                    seen.add(entry.view.key)
                    yield self._line(ADDED, entry.object)
            if self.is_initial:
                yield self._bookmark(version, {"k8s.io/initial-events-end": "true"})
        while not is_stopping() and loop.time() < end_s:
            try:
                events = journal.events(self.resource, version)
            except TooOldError:
                yield _encoded("ERROR", expired().status)
                return
            for line in self._of_events(events, seen):
                yield line
            version = events[-1].entry.version if events else version
            if not events:
                if self.has_bookmarks and loop.time() >= bookmark_s:
                    bookmark_s = loop.time() + BOOKMARK_INTERVAL_S
                    version = journal.version
                    yield self._bookmark(version, {})
                await journal.changed(min(_LONGEST_SLEEP_S, max(0.0, end_s - loop.time())))

    def _is_chosen(self, key: Key, shown: Object) -> bool:
        return self.namespace in {None, key[0]} and self.selector(shown)

    def _of_events(self, events: list[Event], seen: set[Key]) -> Iterator[bytes]:
        """Yield what the client is told: for it, an object that is no longer chosen is deleted."""
        for event in events:
            key, shown = event.entry.view.key, event.entry.object
            is_chosen = self._is_chosen(key, shown)
            if event.kind == DELETED or not is_chosen:
                if is_chosen or key in seen:
                    yield self._line(DELETED, shown)
                seen.discard(key)
            else:
                is_new = event.kind == ADDED
                seen.add(key)
                yield self._line(ADDED if is_new else MODIFIED, shown)

    def _line(self, kind: str, shown: Object) -> bytes:
        return _encoded(kind, self.shown(shown))

    def _bookmark(self, version: int, annotations: Mapping[str, str]) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = dict(annotations)
        kind = {"kind": self.resource.kind, "apiVersion": self.resource.api_version}
        return _encoded("BOOKMARK", {**kind, "metadata": metadata})


def _encoded(kind: str, shown: Object) -> bytes:
    return json.dumps({"type": kind, "object": shown}, separators=(",", ":")).encode() + b"\n"
