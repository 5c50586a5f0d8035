"""A trial's files: the folder in which it works, and beside it what its processes have written."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrialFiles:
    """The files of one trial, in an absolute home."""

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

    @property
    def termination_log(self) -> Path:
        """Where the trial writes its termination message."""
        return self._parent / f"{self._trial}.termination-log"

    @property
    def progress(self) -> Path:
        """Where the trial's callback shows how far it is (``reporting.progress_file``)."""
        return self._parent / f"{self._trial}.progress.jsonl"

    @property
    def status(self) -> dict[str, Any] | None:
        """The last status that the trial has shown to the status server of Kubeflow Trainer; None if it has none."""
        try:
            status: dict[str, Any] = json.loads(self._status_path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return status

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Put a status in the place of the last one."""
        new = self._status_path.with_suffix(".new")
        new.write_text(json.dumps(status), encoding="utf-8")
        new.replace(self._status_path)

    @property
    def _status_path(self) -> Path:
        return self._parent / f"{self._trial}.status.json"

    @property
    def logs(self) -> str:
        """How the paths of all of its logs begin."""
        return f"{self._parent / self._trial}."

    def prepare(self) -> None:
        """Make the folder, and remove what an earlier attempt has written beside it and on its volumes."""
        shutil.rmtree(self.folder / "volumes", ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self._parent.glob(f"{self._trial}.*.log"):
            old.unlink()
        self._status_path.unlink(missing_ok=True)
        self.progress.unlink(missing_ok=True)
        self.log.write_bytes(b"")
        self.termination_log.write_bytes(b"")

    def take_over_checkpoints(self, number: int, parent: object) -> Path:
        """Make the folder of a trial's checkpoints anew, with those of its parent if it has one, and return it."""
        folder = self._parent / "checkpoints" / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        if parent is not None:
            shutil.copytree(folder.with_name(str(parent)), folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
