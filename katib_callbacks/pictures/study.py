"""A view of an experiment as an Optuna study, for Optuna's own plots."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.pictures.records import (
    CREATED,
    RUNNING,
    ExperimentRecord,
    ParameterRecord,
    all_shortened,
    check_installed,
)
from katib_callbacks.pictures.sparkline import thinned

EXTRA = "plot"

NAME_WIDTH, CHOICE_WIDTH = 20, 12
"""Characters of a parameter and of a choice, so that the labels of axes do not overlap."""

CURVE_POINTS = 200


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """Yield the module ``optuna``, which announces nothing meanwhile."""
    check_installed("a plot", EXTRA, "optuna")
    import optuna  # noqa: PLC0415  a third of a second

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(verbosity)


def study_of(record: ExperimentRecord, *, curves_of: str | None = None) -> Any:
    """Return a study in memory, whose trials have the numbers of ours; names and choices are shortened.

    A trial with an objective is COMPLETE, also one that was stopped early: its objective counts in Katib. With
    ``curves_of`` each trial has that metric's values over epochs, and is RUNNING: Optuna draws none of a failed one.
    """
    with quiet() as optuna:
        study = optuna.create_study(direction="maximize" if record.is_maximized else "minimize")
        spaces = [_Space(one, [trial.parameters.get(one.name) for trial in record.trials]) for one in record.parameters]
        names = short_names(record)
        distributions = {names[space.name]: space.distribution(optuna) for space in spaces}
        states = optuna.trial.TrialState
        for number, trial in enumerate(record.trials):
            is_complete = curves_of is None and trial.objective is not None
            is_open = curves_of is not None or trial.state in {CREATED, RUNNING}
            values = {names[space.name]: space.values[number] for space in spaces}
            params = {name: value for name, value in values.items() if value is not None}
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.COMPLETE if is_complete else states.RUNNING if is_open else states.FAIL,
                    value=trial.objective if is_complete else None,
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    intermediate_values=dict(thinned(trial.curve(curves_of), CURVE_POINTS)) if curves_of else {},
                )
            )
        return study


def short_names(record: ExperimentRecord) -> dict[str, str]:
    """Return the names that the study has for parameters."""
    return all_shortened([one.name for one in record.parameters], NAME_WIDTH)


class _Space:
    """A parameter with the values of all trials, as Optuna has them; None for a value that it cannot have."""

    def __init__(self, parameter: ParameterRecord, texts: Sequence[str | None]) -> None:
        self.name = parameter.name
        self._parameter = parameter
        self._is_categorical = parameter.kind == "categorical"
        given = [text for text in texts if text is not None]
        if self._is_categorical:
            short = all_shortened(sorted(set(given)), CHOICE_WIDTH)
            self.values: list[Any] = [None if text is None else short[text] for text in texts]
            self._choices = list(short.values())
        else:
            self.values = [None if text is None else as_number(text) for text in texts]

    def distribution(self, optuna: Any) -> Any:
        """Return a distribution that holds all values: what algorithms make of a range may lie outside."""
        if self._is_categorical:
            return optuna.distributions.CategoricalDistribution(self._choices or [""])
        known = [value for value in self.values if value is not None]
        is_range = self._parameter.kind != "discrete"
        ends = [*known, *((self._parameter.low, self._parameter.high) if is_range or not known else ())]
        low, high = min(ends), max(ends)
        if self._parameter.kind == "int" and all(value.is_integer() for value in known):
            self.values = [None if value is None else int(value) for value in self.values]
            return optuna.distributions.IntDistribution(int(low), int(high), log=self._parameter.is_log and low > 0)
        return optuna.distributions.FloatDistribution(low, high, log=self._parameter.is_log and low > 0)
