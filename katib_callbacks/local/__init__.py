"""Katib on one machine: experiments whose trials are local processes, with the objects and names of Katib's own client.

    from katib_callbacks.local import LocalKatibClient, search

From below to above: ``models`` (Katib's objects), ``search``, ``space``, ``algorithms`` (what is tried),
``experiment`` and ``feasibility`` (reading and checking), ``template``, ``process``, ``orphans`` (a trial's processes),
``observations`` (its rows), ``state`` (one SQLite file), ``controller`` (the loop), ``runner`` (who runs it),
``objective``, ``creation``, ``editing``, ``status``, ``queries``, ``client``. The public names are loaded on first use:
a child process needs few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from katib_callbacks.local import search
    from katib_callbacks.local.client import LocalKatibClient
    from katib_callbacks.local.models import TrainerResources

__all__ = ["LocalKatibClient", "TrainerResources", "search"]

_HOMES = {"LocalKatibClient": "client", "TrainerResources": "models"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "search" or name.startswith("V1"):
        found = import_module(f"{__name__}.search") if name == "search" else None
        found = found or getattr(import_module(f"{__name__}.models"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
