"""Numbers: the values of a framework as numbers, and as the rows that are sent."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from katib_callbacks.errors import MetricValueError
from katib_callbacks.metrics import MetricLog, format_value, to_number
from katib_callbacks.recording.selection import Selection
from katib_callbacks.reporting import termination
from katib_callbacks.settings import OnNan, Runtime


class Numbers:
    """Converts what was selected; logs once of each name whose value cannot be converted.

    Attributes:
        left_out: The values that Katib cannot compare and that were left out, by the framework's names.
    """

    def __init__(self, selection: Selection, on_nan: OnNan) -> None:
        self._selection = selection
        self._on_nan = on_nan
        self.left_out: dict[str, float] = {}

    def number(self, name: str, value: Any) -> float | None:
        """Return a value's number; None for a value that has none."""
        try:
            return to_number(name, value)
        except MetricValueError as error:
            self._selection.voice.warn_once(name, "Not reported: %s", error)
            return None

    def convert(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Convert now what is shown during training, and then need not be converted again."""
        numbers = ((name, self.number(name, value)) for name, value in values.items())
        return {name: number for name, number in numbers if number is not None}

    def shown(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return what of an epoch's numbers is reported, by the names in Katib."""
        return {
            katib_name: numbers[name]
            for katib_name, name in self._selection.in_katib(numbers)
            if self._on_nan == "send" or math.isfinite(numbers[name])
        }

    def logs(self, values: Mapping[str, Any], timestamp: datetime) -> list[MetricLog]:
        """Return the rows of these values; those that Katib cannot compare are left out, and noted."""
        logs = []
        for katib_name, name in self._selection.in_katib(values):
            number = self.number(name, values[name])
            if number is None:
                continue
            if not math.isfinite(number) and self._on_nan != "send":
                self.left_out.setdefault(name, number)
                continue
            try:
                logs.append(MetricLog(katib_name, number, timestamp))
            except MetricValueError as error:  # a name that the framework shows and Katib cannot hold
                self._selection.voice.warn_once(name, "Not reported: %s", error)
        return logs

    def check_left_out(self, pod: Runtime | None) -> None:
        """Warn once of the values that were left out, in this pod's termination message too, or raise."""
        left_out, self.left_out = self.left_out, {}
        if not left_out:
            return
        for name, number in left_out.items():
            termination.explain(
                pod, name, f"{name} was {format_value(number)}, which Katib cannot compare, so it was not reported"
            )
        shown = ", ".join(f"{name}={format_value(number)}" for name, number in left_out.items())
        if self._on_nan == "raise":
            raise MetricValueError(f"nothing of this report was sent, because on_nan is 'raise': {shown}")
        self._selection.voice.warn(
            "Not reported: %s. Katib cannot compare it; on_nan='send' sends it nevertheless.", shown
        )
