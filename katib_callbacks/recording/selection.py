"""Selection: which of the names that a framework shows are reported, and which were seen."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from katib_callbacks.recording.options import RecordingOptions
from katib_callbacks.recording.voice import Voice

_MAX_CHOSEN = 64
"""Frameworks show the same few sets of names again and again, so what is chosen of each is kept, for so many."""


class Selection:
    """The names of one callback; those that ``is_bookkeeping`` finds are reported only when they are named.

    Attributes:
        voice: Logs, for all that warns of these names.
        is_everything: Whether no metric was named, so that all are reported.
        seen: The names that the run has shown, until it has shown all that were asked for.
        has_all: Whether every name that was asked for has appeared.
    """

    def __init__(
        self, options: RecordingOptions, is_bookkeeping: Callable[[str, Collection[str]], bool] | None, voice: Voice
    ) -> None:
        self.voice = voice
        self._names = options.names
        self._monitor = options.monitor
        self.is_everything = options.names is None
        self._is_bookkeeping = is_bookkeeping
        self._chosen: dict[tuple[str, ...], list[str]] = {}  # by what was shown
        self.reset()

    def reset(self) -> None:
        """Forget what the last run has shown."""
        self.seen: dict[str, None] = {}
        self.has_all = False

    def choose(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is reported of these values, or decides, by the framework's names; detached from graphs."""
        if not self.has_all:  # the messages alone need them
            self.seen.update(dict.fromkeys(name for name in values if isinstance(name, str)))
        shown = tuple(values)
        names = self._chosen.get(shown)
        if names is None:
            if len(self._chosen) == _MAX_CHOSEN:
                self._chosen.clear()
            names = self._chosen[shown] = self._names_among(shown)
        # Most frameworks show floats: no call for each of them.
        return {name: value if type(value := values[name]) is float else _detached(value) for name in names}

    def _names_among(self, shown: Collection[str]) -> list[str]:
        if self._names is None:
            ignored = self._is_bookkeeping
            names = [name for name in shown if self._is_name(name) and (ignored is None or not ignored(name, shown))]
        else:
            names = [name for name in self._names.values() if name in shown]
        if self._monitor is not None and self._monitor in shown:
            names.append(self._monitor)
        return names

    def _is_name(self, name: object) -> bool:
        """Return whether a key of what is shown is a name at all; what other callbacks add may have any key."""
        if isinstance(name, str):
            return True
        kind = type(name).__name__
        self.voice.warn_once(repr(name), "Not reported: a metric's name must be a str, not %s: %r", kind, name)
        return False

    def in_katib(self, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return what of these values is reported, in the order asked for: names in Katib and in the framework."""
        pairs = self._names.items() if self._names is not None else [(name, name) for name in values]
        return [(katib_name, name) for katib_name, name in pairs if name in values]

    def missing(self, had: Collection[str]) -> dict[str, str]:
        """Return the names that were asked for and have had no value, and for each what may help to find out why."""
        wanted = [*(self._names or {}).values(), *([self._monitor] if self._monitor else [])]
        return {name: self._describe_seen(name) for name in dict.fromkeys(wanted) if name not in had}

    def _describe_seen(self, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  rarely needed

        nearest = get_close_matches(name, self.seen, cutoff=0.5)
        question = f" Did you mean {nearest[0]!r}?" if nearest else ""
        return f"Seen: {', '.join(sorted(self.seen)) or 'nothing'}.{question}"


def _detached(value: Any) -> Any:
    """Let go of the graph that computed a tensor."""
    try:
        return value.detach() if hasattr(value, "detach") else value
    except Exception:  # noqa: BLE001  no tensor: to_number names it, and the other metrics go their way
        return value
