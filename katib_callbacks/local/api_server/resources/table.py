"""The resources that there are: one row each. A further one is a further row, and a writer in ``writers``."""

from collections.abc import Callable, Mapping
from pathlib import Path

from katib_callbacks.local.api.models import V1beta1Experiment, V1beta1Trial
from katib_callbacks.local.api.suggestions import V1beta1Suggestion
from katib_callbacks.local.api_server.resources import core, katib, trainer
from katib_callbacks.local.api_server.resources.experiments import ExperimentWriter, TrainerWriter, TrainJobWriter
from katib_callbacks.local.api_server.resources.resource import Resource
from katib_callbacks.local.trainer.optimization_job import OptimizationJob

_EVENT_FIELDS = (
    *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion")),
    *("reason", "type"),
)

TABLE = (
    Resource(
        "kubeflow.org", "v1beta1", "experiments", "Experiment", katib.EXPERIMENT_COLUMNS,
        of_experiment=katib.experiments, schema=V1beta1Experiment, categories=("all", "kubeflow", "katib"),
    ),
    Resource(
        "kubeflow.org", "v1beta1", "trials", "Trial", katib.TRIAL_COLUMNS,
        of_trial=katib.trials, schema=V1beta1Trial, categories=("all", "kubeflow", "katib"),
    ),
    Resource(
        "kubeflow.org", "v1beta1", "suggestions", "Suggestion", katib.SUGGESTION_COLUMNS,
        of_experiment=katib.suggestions, schema=V1beta1Suggestion, categories=("all", "kubeflow", "katib"),
    ),
    Resource(
        "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob", trainer.TRAIN_JOB_COLUMNS,
        of_experiment=trainer.own_train_jobs, of_trial=trainer.train_jobs,
        description="A training, for itself or as a trial.",
    ),
    Resource(
        "trainer.kubeflow.org", "v1alpha1", "optimizationjobs", "OptimizationJob", trainer.TRAIN_JOB_COLUMNS,
        of_experiment=trainer.optimization_jobs, schema=OptimizationJob,
    ),
    Resource(
        "trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime",
        trainer.RUNTIME_COLUMNS, fixed=trainer.RUNTIMES, is_namespaced=False,
        description="A runtime of Kubeflow Trainer: here it is the server's own Python.",
    ),
    Resource(
        "", "v1", "pods", "Pod", core.POD_COLUMNS,
        of_trial=core.pods, description="A process of a trial.", short_names=("po",), categories=("all",),
        fields=("status.phase", "spec.nodeName", "spec.restartPolicy"), has_logs=True,
    ),
    Resource(
        "", "v1", "events", "Event", core.EVENT_COLUMNS,
        of_experiment=core.experiment_events, of_trial=core.trial_events, short_names=("ev",), fields=_EVENT_FIELDS,
        description="A condition that an experiment or a trial came into.",
    ),
    Resource(
        "", "v1", "namespaces", "Namespace", core.NAMESPACE_COLUMNS,
        fixed=core.NAMESPACES, named=core.namespace, is_namespaced=False, short_names=("ns",), fields=("status.phase",),
        description="A word in the metadata of experiments; each is there.",
    ),
    Resource(
        "batch", "v1", "jobs", "Job", core.JOB_COLUMNS,
        of_trial=core.jobs, categories=("all",), fields=("status.successful",), description="A trial's job.",
    ),
)  # fmt: skip


def writers(home: Path, folder: Path, start: Callable[[str], None]) -> Mapping[Resource, ExperimentWriter]:
    """Return what writes the resources of a home that can be written."""
    kinds: dict[str, type[ExperimentWriter]]
    kinds = {"experiments": ExperimentWriter, "optimizationjobs": TrainerWriter, "trainjobs": TrainJobWriter}
    return {one: kinds[one.plural](home, one, folder, start) for one in TABLE if one.plural in kinds}
