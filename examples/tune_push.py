"""The example of Katib's documentation of push-based metrics collection, on this machine.

Two names differ from the one for a cluster: the client's class, and where the objective imports ``report_metrics``
from (``kubeflow.katib`` there; the one here works in a cluster as well). ::

    pip install "katib-callbacks[local]"
    python examples/tune_push.py
"""

import argparse

from katib_callbacks.local import LocalKatibClient, search


def objective(parameters: dict) -> None:  # type: ignore[type-arg]  # the source alone travels: no names from outside
    """Report a result that is great for a great a and a small b."""
    import time

    from katib_callbacks import report_metrics

    time.sleep(0.1)
    result = 4 * int(parameters["a"]) - float(parameters["b"]) ** 2
    report_metrics({"result": result})


def main() -> None:
    """Tune, and print the best hyperparameters."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--home", default="katib-local", help="the folder of state and logs (default: %(default)s)")
    client = LocalKatibClient(home=arguments.parse_args().home)

    name = "tune-experiment"
    client.tune(
        name=name,
        objective=objective,
        parameters={"a": search.int(min=10, max=20), "b": search.double(min=0.1, max=0.2)},
        objective_metric_name="result",
        max_trial_count=12,
        parallel_trial_count=2,
        resources_per_trial={"cpu": "2"},
        metrics_collector_config={"kind": "Push"},
    )
    client.wait_for_experiment_condition(name=name)
    print(client.get_optimal_hyperparameters(name))


if __name__ == "__main__":
    main()
