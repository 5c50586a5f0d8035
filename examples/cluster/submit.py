"""Submit an experiment of this folder with Katib's own client, wait for its end, and show the best hyperparameters.

From the repository's root, wherever kubectl works::

    pip install kubeflow-katib "kubernetes<33"
    python examples/cluster/submit.py examples/cluster/lightning-job.yaml --image registry.example.com/trials:1.0.0

After ``katib-callbacks up`` it runs on this machine, without the image.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubeflow.katib import KatibClient


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each mapping that names an image, of any kind of job."""
    if isinstance(value, dict):
        if "image" in value:
            yield value
        for item in value.values():
            yield from containers(item)
    elif isinstance(value, list):
        for item in value:
            yield from containers(item)


def main() -> None:
    """Submit, wait, and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an Experiment")
    parser.add_argument("--image", help="in the place of the file's")
    parser.add_argument("--namespace", help="in the place of the file's")
    parser.add_argument("--max-trial-count", type=int, help="in the place of the file's")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds to wait (default: %(default)s)")
    arguments = parser.parse_args()

    experiment = yaml.safe_load(arguments.file.read_text(encoding="utf-8"))
    spec = experiment["spec"]
    for container in containers(spec) if arguments.image else ():
        container["image"] = arguments.image
    if arguments.max_trial_count:
        spec["maxTrialCount"] = arguments.max_trial_count
        for name in ("parallelTrialCount", "maxFailedTrialCount"):
            spec[name] = min(spec[name], arguments.max_trial_count)
    name, namespace = experiment["metadata"]["name"], arguments.namespace or experiment["metadata"]["namespace"]
    experiment["metadata"]["namespace"] = namespace

    client = KatibClient(namespace=namespace)
    client.create_experiment(experiment)
    print(f"experiment {name} is submitted; kubectl get trials -n {namespace} -w shows its trials")
    client.wait_for_experiment_condition(name, timeout=arguments.timeout, polling_interval=2)
    best = client.get_optimal_hyperparameters(name)
    print(f"best trial {best.best_trial_name}")
    for metric in best.observation.metrics:
        print(f"  {metric.name}: {metric.latest}")
    for parameter in best.parameter_assignments:
        print(f"  {parameter.name} = {parameter.value}")


if __name__ == "__main__":
    main()
