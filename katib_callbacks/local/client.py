"""Katib's client on one machine: the methods, names and arguments of ``kubeflow.katib.KatibClient`` 0.19.0.

It is long because upstream's signatures are: what a method does stands in ``running``, ``state`` and ``tune``.
"""

# ruff: noqa: ARG002  upstream's arguments, of which some have no effect on one machine

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError, WaitTimeoutError
from katib_callbacks.local.api.models import V1beta1Experiment
from katib_callbacks.local.api.serialization import plain
from katib_callbacks.local.queries import DEFAULT_TIMEOUT_S, Queries
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.background import BackgroundRunners
from katib_callbacks.local.running.runner import DEFAULT_HOME, database
from katib_callbacks.local.state import states
from katib_callbacks.local.state.budget import edit_budget
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.local.trials.template import DEFAULT_NAMESPACE
from katib_callbacks.local.tune import manifest as tuning
from katib_callbacks.local.tune import source as objectives
from katib_callbacks.pictures.notebook import shown_while_waiting

BASE_IMAGE_PYTORCH = "docker.io/pytorch/pytorch:2.2.1-cuda12.1-cudnn8-runtime"
"""Upstream's default (constants/constants.py). An image has no effect here."""

_CHECK_INTERVAL_S = 0.5

_logger = logging.getLogger(__name__)


class LocalKatibClient(Queries):
    """Runs experiments on this machine; takes the place of ``kubeflow.katib.KatibClient``.

    An experiment runs in a thread of this process, its trials in processes of their own. When the script ends, the
    process waits for experiments that still run, as a cluster would go on; after an exception or a Ctrl-C it ends them,
    and :meth:`resume_experiment` goes on. Methods raise what upstream's raise: ``RuntimeError`` for what is not there
    or has failed, ``TimeoutError`` for waiting in vain, ``ValueError`` for arguments that cannot be right.

    Args:
        config_file: Of a cluster; without effect here, as the next two.
        context: Of a cluster.
        client_configuration: Of a cluster.
        namespace: A word in the experiments' metadata.
        home: The folder of the state (``katib.db``) and of the trials' folders and logs; made if it does not exist.
        workdir: A folder in which all trials of its experiments work; None for a folder of each one's own.
        gpus_per_trial: How many of the machine's GPUs a trial has to itself; None for what its template says.
    """

    def __init__(
        self,
        config_file: str | None = None,
        context: str | None = None,
        client_configuration: Any = None,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        home: str | Path = DEFAULT_HOME,
        workdir: str | Path | None = None,
        gpus_per_trial: int | None = None,
    ) -> None:
        self._workdir = workdir
        self._gpus_per_trial = gpus_per_trial
        self.namespace = namespace
        super().__init__(Path(home).absolute())
        self._runners = BackgroundRunners(self._home)
        self._said: set[str] = set()
        self._say_once(config_file=config_file, context=context, client_configuration=client_configuration)

    def __enter__(self) -> "LocalKatibClient":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the experiments that this client runs, and wait for that. They can be resumed."""
        self._runners.close()

    def create_experiment(
        self, experiment: V1beta1Experiment | Mapping[str, Any] | Any, namespace: str | None = None
    ) -> None:
        """Store an experiment and start it. Does not wait for it.

        Args:
            experiment: Our model, upstream's, or a mapping as in YAML.
            namespace: A word in the experiment's metadata.

        Raises:
            ConfigurationError: A ValueError: it is not legal, or cannot be run on one machine; with the path.
            ExperimentError: A RuntimeError: there is one of this name.
        """
        data = plain(experiment)
        if isinstance(data, dict) and isinstance(data.get("metadata"), dict):
            data["metadata"].setdefault("namespace", namespace or self.namespace)
        self._create(data, is_tuned=False)

    def tune(
        self,
        name: str,
        model_provider_parameters: Any = None,
        dataset_provider_parameters: Any = None,
        trainer_parameters: Any = None,
        storage_config: Mapping[str, Any] | None = None,
        objective: Callable[..., Any] | None = None,
        base_image: str = BASE_IMAGE_PYTORCH,
        parameters: Mapping[str, Any] | None = None,
        namespace: str | None = None,
        env_per_trial: Mapping[str, str] | Sequence[Any] | None = None,
        algorithm_name: str = "random",
        algorithm_settings: Mapping[str, Any] | Sequence[Any] | None = None,
        objective_metric_name: str | None = None,
        additional_metric_names: Sequence[str] = (),
        objective_type: str = "maximize",
        objective_goal: float | None = None,
        max_trial_count: int | None = None,
        parallel_trial_count: int | None = None,
        max_failed_trial_count: int | None = None,
        resources_per_trial: Any = None,
        retain_trials: bool = False,
        packages_to_install: Sequence[str] | None = None,
        pip_index_urls: Sequence[str] | None = None,
        metrics_collector_config: Mapping[str, Any] | None = None,
        trial_active_deadline_seconds: int | None = None,
    ) -> None:
        """Search for the best arguments of a function. Does not wait for the end.

        Args:
            name: The experiment's.
            model_provider_parameters: Of upstream's tuning of language models, which is not done here; as the next two.
            dataset_provider_parameters: As before.
            trainer_parameters: As before.
            storage_config: Without effect here.
            objective: A function of one dict, self-contained: its source alone travels. Tuned values are strings.
            base_image: Without effect here: trials run in this Python's environment.
            parameters: What the dict holds: parameter specs of :mod:`katib_callbacks.local.search` or
                ``kubeflow.katib.search`` are searched, other values are handed over.
            namespace: A word in the experiment's metadata.
            env_per_trial: Variables of the trials, as a mapping or as a list of Kubernetes' ``V1EnvVar``.
            algorithm_name: ``random``, ``grid``, ``tpe``, ``multivariate-tpe``, ``cmaes`` or ``sobol``.
            algorithm_settings: Katib's settings of the algorithm, such as ``{"random_state": 7}``.
            objective_metric_name: Which metric is optimised.
            additional_metric_names: Which others are kept with the trial.
            objective_type: ``maximize`` or ``minimize``.
            objective_goal: The experiment is over when a trial reaches it.
            max_trial_count: How many trials; None for no end.
            parallel_trial_count: How many at a time; Katib's default is 3.
            max_failed_trial_count: The experiment fails when more trials than these do; None for never.
            resources_per_trial: With ``num_workers`` and ``num_procs_per_worker`` (``TrainerResources``): how many
                processes a trial has. Anything else is kept, and has no effect here.
            retain_trials: Whether a succeeded trial's working folder is kept; a failed one's always is.
            packages_to_install: Must be installed here.
            pip_index_urls: Without effect here.
            metrics_collector_config: ``{"kind": "Push"}`` or ``{"kind": "StdOut"}``, the default.
            trial_active_deadline_seconds: After how many seconds a trial is ended and has failed.

        Raises:
            ConfigurationError: A ValueError: the message names the argument.
            ExperimentError: A RuntimeError: there is an experiment of this name.
        """
        if any(one is not None for one in (model_provider_parameters, dataset_provider_parameters, trainer_parameters)):
            raise ConfigurationError("tune: external models and datasets need a cluster; give objective and parameters")
        if not name or objective is None or not parameters:
            raise ConfigurationError("tune: name, objective and parameters must be given")
        self._say_once(
            storage_config=storage_config,
            base_image=None if base_image == BASE_IMAGE_PYTORCH else base_image,
            namespace=namespace,
            pip_index_urls=pip_index_urls,
        )
        objectives.check_packages(packages_to_install or ())
        searched = {key: value for key, value in parameters.items() if tuning.is_parameter(value)}
        arguments = {key: f"${{trialParameters.{key}}}" if key in searched else parameters[key] for key in parameters}
        experiment = tuning.experiment(
            {"name": name, "namespace": namespace or self.namespace},
            [tuning.parameter(spec, key) for key, spec in searched.items()],
            tuning.template(
                script=objectives.script(objective, arguments),
                environ=tuning.environment(env_per_trial),
                image=base_image,
                resources=resources_per_trial,
                deadline_s=trial_active_deadline_seconds,
                retain=retain_trials,
            ),
            {
                "type": objective_type,
                "goal": objective_goal,
                "objectiveMetricName": objective_metric_name,
                "additionalMetricNames": list(additional_metric_names),
            },
            tuning.algorithm(algorithm_name, algorithm_settings),
            collector=(metrics_collector_config or {}).get("kind", "StdOut"),
            budget={
                "maxTrialCount": max_trial_count,
                "parallelTrialCount": parallel_trial_count,
                "maxFailedTrialCount": max_failed_trial_count,
            },
        )
        self._create(experiment, is_tuned=True)

    def resume_experiment(self, name: str) -> None:
        """Go on with an experiment whose runner has stopped or was killed. Nothing happens if it is over or runs."""
        with ExperimentStore(database(self._home)) as store:
            is_over = store.is_over(name)
        if not is_over and not self._runners.is_run(name):
            self._runners.start(name)

    def wait_for_experiment_condition(
        self,
        name: str,
        namespace: str | None = None,
        expected_condition: str = states.SUCCEEDED,
        timeout: float = 600,
        polling_interval: float = 15,
        apiserver_timeout: float = DEFAULT_TIMEOUT_S,
    ) -> V1beta1Experiment:
        """Wait until an experiment is in a condition, and show it meanwhile.

        A notebook's output and a terminal show it live; elsewhere an INFO line of the log says how each trial ended.

        Args:
            name: Which.
            namespace: Without effect here.
            expected_condition: ``Created``, ``Running``, ``Restarting``, ``Succeeded`` or ``Failed``.
            timeout: Seconds.
            polling_interval: Seconds at most between two looks; an end that happens in this process is seen at once.
            apiserver_timeout: Without effect here.

        Raises:
            ExperimentError: A RuntimeError: it failed, or no process runs it.
            WaitTimeoutError: A TimeoutError: it is not in the condition after that time.
        """
        give_up_at_s = time.monotonic() + timeout
        with ExperimentStore(database(self._home)) as store, self._shown(name) as update:
            while True:
                row = store.experiment(name)
                holding = {one["type"] for one in row.conditions if one["status"] == "True"}
                if expected_condition in holding:
                    return self.get_experiment(name)
                if states.FAILED in holding:
                    raise ExperimentError(f"experiment {name!r} has failed: {row.conditions[-1]['message']}")
                if states.SUCCEEDED in holding:
                    raise ExperimentError(f"experiment {name!r} is Succeeded, and will not be {expected_condition}")
                left_s = give_up_at_s - time.monotonic()
                if left_s <= 0:
                    raise WaitTimeoutError(f"experiment {name!r} is not {expected_condition} after {timeout:g} s")
                update()
                self._runners.wait(name, min(left_s, polling_interval, _CHECK_INTERVAL_S))

    def edit_experiment_budget(
        self,
        name: str,
        namespace: str | None = None,
        max_trial_count: int | None = None,
        parallel_trial_count: int | None = None,
        max_failed_trial_count: int | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Change the budget of an experiment. One that has used it up goes on, if its ``resumePolicy`` allows it.

        Raises:
            ConfigurationError: A ValueError: nothing is to be changed.
            ExperimentError: A RuntimeError: Katib's webhook would refuse it; the message says why.
        """
        with ExperimentStore(database(self._home)) as store:
            is_restarted = edit_budget(
                store,
                name,
                max_trial_count=max_trial_count,
                parallel_trial_count=parallel_trial_count,
                max_failed_trial_count=max_failed_trial_count,
            )
        if is_restarted:
            self._runners.restart(name)

    def delete_experiment(self, name: str, namespace: str | None = None, delete_options: Any = None) -> None:
        """Delete an experiment, its trials, their rows and folders; one that runs is ended first.

        Raises:
            ExperimentError: A RuntimeError: there is none of this name.
        """
        self._runners.stop(name)
        runner.delete(self._home, name)

    # -- what upstream's client has no need of ---------------------------------------------------------------------

    def _create(self, experiment: Any, *, is_tuned: bool) -> None:
        name, notes = runner.create(
            self._home,
            experiment,
            folder=Path.cwd(),
            workdir=None if self._workdir is None else Path(self._workdir),
            gpus_per_trial=self._gpus_per_trial,
        )
        if notes and not is_tuned:  # there only the arguments are the user's, and they were said
            self._say_once(**dict.fromkeys(notes, True))
        self._runners.start(name)

    @contextmanager
    def _shown(self, name: str) -> Iterator[Callable[[], None]]:
        """Show an experiment; yields what is to be called meanwhile. Its store is its own: a thread may read it."""
        with (
            ExperimentStore(database(self._home)) as store,
            shown_while_waiting(Watch(store, self._home, name).look) as update,
        ):
            yield update

    def _say_once(self, **given: Any) -> None:
        new = [name for name, value in given.items() if value is not None and name not in self._said]
        if new:
            self._said.update(new)
            _logger.warning("without effect on one machine: %s", ", ".join(new))
