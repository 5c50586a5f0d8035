"""From stored rows to the records that pictures and files are made of."""

from collections.abc import Sequence
from pathlib import Path

from katib_callbacks.local.algorithms.space import read_parameter
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.models import V1beta1ParameterSpec
from katib_callbacks.local.api.serialization import plain
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.local.trainer.objects import verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.pictures.records import ExperimentRecord, ParameterRecord, TrialRecord
from katib_callbacks.reporting.progress_file import ProgressReader


def experiment_record(store: ExperimentStore, home: Path, name: str, *, epochs: bool = True) -> ExperimentRecord:
    """Return an experiment with its trials and all of their rows; without the callbacks' epochs, if not asked for."""
    row, trials = store.experiment(name), store.trials(name)
    rows = store.rows_of_all(name)
    state, message = verdict(row, trials)
    objective = row.manifest["spec"]["objective"]
    folder = home.absolute()
    return ExperimentRecord(
        name=name,
        state=state,
        message=message,
        objective=objective["objectiveMetricName"],
        is_maximized=objective["type"] == "maximize",
        metrics=(objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or ())),
        parameters=_parameters(row.manifest),
        budget=row.manifest["spec"].get("maxTrialCount"),
        trials=[
            trial_record(
                trial,
                rows.get(trial.name, ()),
                ProgressReader(TrialFiles(folder, name, trial.name).progress).read().rows if epochs else (),
            )
            for trial in trials
        ],
    )


def trial_record(
    trial: TrialRow, rows: Sequence[StoredMetricLog] = (), epochs: Sequence[dict[str, float]] = ()
) -> TrialRecord:
    """Return a trial with what was reported and shown of it."""
    told = trial.conditions[-1]
    return TrialRecord(
        name=trial.name,
        number=trial.number,
        state=trial.state,
        reason=str(told["reason"]),
        message=plain(told["message"]),  # it may name a path that is no Unicode
        parameters=trial.assignments,
        objective=trial.value,
        metrics={one["name"]: one for one in trial.observation or ()},
        created_s=trial.created_s,
        started_s=trial.started_s,
        completed_s=trial.completed_s,
        rows=rows,
        epochs=epochs,
    )


def _parameters(manifest: Manifest) -> list[ParameterRecord]:
    read = [read_parameter(V1beta1ParameterSpec.from_dict(one)) for one in manifest["spec"].get("parameters") or ()]
    return [
        ParameterRecord(one.name, one.kind, float(one.low), float(one.high), one.distribution.startswith("log"))
        for one in read
    ]
