"""Katib on one machine: experiments whose trials are local processes, with the objects and names of Katib's own client.

    from katib_callbacks.local import LocalKatibClient, search

``client`` is what users hold, ``queries`` what it reads. ``api`` reads and judges Katib's objects, ``plan`` is what
one machine makes of an experiment, ``algorithms`` what is tried next. ``running`` has the loop of an experiment,
``trials`` a trial's processes from launch to verdict; ``state`` is one SQLite file, also the DB manager's. The public
names are loaded on first use: a child process needs few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from katib_callbacks.local import search
    from katib_callbacks.local.api.models import TrainerResources
    from katib_callbacks.local.client import LocalKatibClient

__all__ = ["LocalKatibClient", "TrainerResources", "search"]

_HOMES = {"LocalKatibClient": "client", "TrainerResources": "api.models"}


if not TYPE_CHECKING:  # hidden from type checkers, which would take any misspelt name for a name of ours

    def __getattr__(name: str) -> Any:
        """Load a public name from its module on first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_HOMES.get(name, name)}")
        return getattr(module, name) if name in _HOMES else module
