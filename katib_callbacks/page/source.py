"""Source: where a page has its experiments from."""

from collections.abc import Sequence
from typing import Any, Protocol


class Source(Protocol):
    """Answers in JSON's types. Any thread may ask; KatibCallbacksError where something cannot be read."""

    def experiments(self) -> list[dict[str, Any]]:
        """Return all experiments, the newest first."""
        ...

    def experiment(self, name: str, generation: str, revision: int) -> dict[str, Any]:
        """Return what has changed in an experiment since a revision."""
        ...

    def curves(self, trials: Sequence[str]) -> dict[str, Any]:
        """Return the curves of trials, by name."""
        ...

    def trial(self, name: str) -> dict[str, Any]:
        """Return all about a trial but its curves and the text of its logs."""
        ...

    def log(self, trial: str, file: str, offset: int | None) -> dict[str, Any]:
        """Return what a log has from an offset on; its last part without one."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...
