"""A trial's files: the folder in which it works, and beside it what its processes have written."""

from pathlib import Path


class TrialFiles:
    """The files of one trial.

    Args:
        home: The folder of state and trials, absolute.
        experiment: The experiment's name.
        trial: The trial's.
    """

    def __init__(self, home: Path, experiment: str, trial: str) -> None:
        self._parent = home / experiment
        self._trial = trial

    @property
    def folder(self) -> Path:
        """Where the trial works."""
        return self._parent / self._trial

    @property
    def log(self) -> Path:
        """Where the output of the primary process lies."""
        return self._parent / f"{self._trial}.log"
