"""Status: what a TrainJob's status server is told, within the limits that it sets.

The limits are those of Kubeflow Trainer's ``TrainerStatus`` (pkg/apis/trainer/v1alpha1/trainjob_types.go) and of its
server (pkg/statusserver/server.go). A status that misses one of them is refused as a whole, so nothing is ever sent
that does: it is cut, or left out.
"""

import json
import logging
import math
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from katib_callbacks.metrics import format_value

MAX_METRICS = 256
MAX_NAME_CHARACTERS = 64
MAX_BODY_BYTES = 64 * 1024
MAX_SECONDS = 2**31 - 1
"""Both numbers are int32."""

_ROUNDING = 1e-9
"""So that 0.29, which times 100 is a little less than 29, shows as 29 %."""

logger = logging.getLogger(__name__)


class Status:
    """The latest state of one job, as far as this process knows; each request carries all of it."""

    def __init__(self) -> None:
        self.fraction: float | None = None
        self.remaining_s: float | None = None
        self._metrics: dict[str, str] = {}
        self._said: set[str] = set()

    def update(self, metrics: Mapping[str, float]) -> None:
        """Take newer values; those of other names stay."""
        for name, value in metrics.items():
            shown = self._shortened(name)
            if shown:
                self._metrics.pop(shown, None)  # the newest stand last, so the oldest are left out first
                self._metrics[shown] = format_value(value)
        while len(self._metrics) > MAX_METRICS:
            self._leave_out(f"more than {MAX_METRICS} metrics")

    def body(self, now: datetime) -> bytes:
        """Return a request's body; ``now`` is in UTC."""
        while True:
            body = json.dumps({"trainerStatus": self._content(now)}, ensure_ascii=False).encode()
            if len(body) <= MAX_BODY_BYTES:
                return body
            self._leave_out(f"more than {MAX_BODY_BYTES:,} bytes")

    def _content(self, now: datetime) -> dict[str, Any]:
        content: dict[str, Any] = {"lastUpdatedTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if self.fraction is not None:
            content["progressPercentage"] = percentage(self.fraction)
        if self.remaining_s is not None:
            content["estimatedRemainingSeconds"] = min(max(math.ceil(self.remaining_s), 0), MAX_SECONDS)
        if self._metrics:
            content["metrics"] = [{"name": name, "value": value} for name, value in self._metrics.items()]
        return content

    def _shortened(self, name: str) -> str:
        """Return a name that fits; of two long ones that begin alike each keeps one of its own."""
        shown = name.encode("utf-8", errors="replace").decode()  # a lone surrogate is in no JSON
        if len(shown) <= MAX_NAME_CHARACTERS:
            return shown
        mark = f"~{zlib.crc32(shown.encode()):08x}"
        shown = shown[: MAX_NAME_CHARACTERS - len(mark)] + mark
        self._say(name, "A TrainJob's status takes names of 64 characters: %r is shown as %r.", name, shown)
        return shown

    def _leave_out(self, why: str) -> None:
        name = next(iter(self._metrics))
        del self._metrics[name]
        self._say(why, "A TrainJob's status takes no %s: %r is left out, and so may others be.", why, name)

    def _say(self, key: str, message: str, *arguments: object) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning(message, *arguments)


def percentage(fraction: float) -> int:
    """Return whole percent, rounded down; 100 only for the true end."""
    if fraction >= 1:
        return 100
    return min(max(math.floor(fraction * 100 + _ROUNDING), 0), 99)
