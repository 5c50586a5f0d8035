"""Finding: what one check of the doctor has found, and the surroundings that the checks share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime
from katib_callbacks.sinks.auto import NOWHERE, Whereabouts

if TYPE_CHECKING:
    from katib_callbacks.sinks.katib.endpoint import Endpoint

OK, NOTE, PROBLEM = "ok", "note", "problem"
"""A note may be a mistake; a problem would make a report fail, or keep a metric from where Katib looks for it."""


@dataclass(frozen=True)
class Finding:
    """A line of the doctor; ``advice`` says what to do, and is empty where nothing is to be done."""

    check: str
    status: str
    detail: str
    advice: str = ""


@dataclass
class Surroundings:
    """Surroundings of this process; each check may add what it found out.

    Attributes:
        endpoint: The DB manager, once it is known to be wanted and to be reached.
    """

    is_writing: bool = False
    runtime: Runtime = DEFAULT_RUNTIME
    trial_name: str | None = None
    where: Whereabouts = field(default=NOWHERE)
    endpoint: "Endpoint | None" = None


Checks: TypeAlias = tuple[Callable[[Surroundings], Iterator[Finding]], ...]
