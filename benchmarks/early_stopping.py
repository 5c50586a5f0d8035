"""What early stopping saves, and how long an answer takes: ``--stores sqlite,mariadb,postgresql``.

First 60 trials of a network that learns digits are trained to their ends, each with hyperparameters of its own. Then a
DB manager judges them at each epoch, four at a time, in several orders: the share of the epochs that were run, and how
often the best trial is still found. Each answer is compared with what the rule says, computed anew from the rows that
the DB manager holds.

Then, on each store, 100 trials of an experiment of 1,000 ask once a second: how long an answer takes, and how soon the
first one comes after a restart.
"""

import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
from db_manager_load import database
from figures import Figure, Size, run
from machine import db_manager

from katib_callbacks import KatibReporter, MetricLog
from katib_callbacks.db_manager import DBManager
from katib_callbacks.settings import DEFAULT_RUNTIME
from katib_callbacks.settings.early_stopping import Policy, parse_policy
from katib_callbacks.sinks.katib.asking import Asker
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.wire.client import DBManagerStub

TRIALS, EPOCHS, PARALLEL = 60, 27, 4
POLICIES = ("medianstop,type=maximize", "asha,type=maximize")

ASKING, SECONDS, SIBLINGS = 100, 10, 1_000
ORDERS = 3
P99_MS, RESTART_S = 20.0, 2.0
JUDGED = "medianstop,type=maximize"


def measure(size: Size, stores: str) -> Iterator[Figure]:
    """Replay trainings under each policy, then ask."""
    yield from _savings(size(ORDERS))
    for store in stores.split(","):
        with ExitStack() as stack:
            times_ms, restart_s = _answers(database(store, stack)[0])
        p99_ms = statistics.quantiles(times_ms, n=100)[98]
        yield Figure(f"{store}: answer to one of {ASKING} trials", times_ms, "ms")
        yield Figure(f"{store}: the same, 99th percentile", [p99_ms], "ms", at_most=P99_MS)
        yield Figure(f"{store}: first answer after a restart", [restart_s], "s", at_most=RESTART_S)


# -- what is saved -------------------------------------------------------------------------------------------------


def _savings(orders: int) -> Iterator[Figure]:
    curves = [_train(seed) for seed in range(TRIALS)]
    best = max(max(curve) for curve in curves)
    for policy in POLICIES:
        results = [_replay(curves, policy, order) for order in range(orders)]
        shares, bests, wrong = zip(*results, strict=True)
        if any(wrong):
            sys.exit(f"{policy}: {sum(wrong)} answers are against the rule")
        name = policy.partition(",")[0]
        yield Figure(f"`{name}`: epochs run of {TRIALS} trials", shares, "", "without", [1.0])
        lost = [best - found for found in bests]
        yield Figure(f"`{name}`: accuracy of the best trial that was lost", lost, "")


def _train(seed: int) -> list[float]:
    """Return the validation accuracy after each epoch of a network with one hidden layer, trained by SGD."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  loaded once

    draw = np.random.default_rng(seed)
    rate, hidden, momentum = 10 ** draw.uniform(-3.5, 0.7), int(2 ** draw.uniform(2, 7)), draw.uniform(0, 0.95)
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1_200], order[1_200:]
    weights = [draw.normal(0, 64**-0.5, (64, hidden)), draw.normal(0, hidden**-0.5, (hidden, 10))]
    speeds = [np.zeros_like(one) for one in weights]
    accuracies = []
    for _ in range(EPOCHS):
        for batch in np.array_split(draw.permutation(train), 40):
            inner = np.maximum(images[batch] @ weights[0], 0)
            scores = inner @ weights[1]
            chances = np.exp(scores - scores.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            chances[np.arange(len(batch)), labels[batch]] -= 1
            chances /= len(batch)
            slopes = [images[batch].T @ ((chances @ weights[1].T) * (inner > 0)), inner.T @ chances]
            for layer, slope in enumerate(slopes):
                speeds[layer] = momentum * speeds[layer] - rate * np.clip(slope, -1, 1)
                weights[layer] += speeds[layer]
        guesses = (np.maximum(images[test] @ weights[0], 0) @ weights[1]).argmax(axis=1)
        accuracies.append(round(float((guesses == labels[test]).mean()), 6))
    return accuracies


def _replay(curves: list[list[float]], text: str, order: int) -> tuple[float, float, int]:
    """Return the share of epochs run, the best accuracy, and the number of answers against the rule."""
    policy = parse_policy("policy", text)
    names = [f"digits-{number}" for number in random.Random(order).sample(range(TRIALS), TRIALS)]  # noqa: S311
    events: list[tuple[str, int, bool]] = []
    with tempfile.TemporaryDirectory() as folder, DBManager(Path(folder, "katib.db")) as server:
        endpoint = Endpoint(server.address)
        running: dict[str, tuple[Asker, list[MetricLog]]] = {}
        while names or running:
            while names and len(running) < PARALLEL:
                name = names.pop(0)
                running[name] = Asker(endpoint, name, policy, DEFAULT_RUNTIME), []
            for name, (asker, logs) in list(running.items()):
                curve = curves[int(name.rpartition("-")[2])]
                logs.append(MetricLog("accuracy", curve[len(logs)], DEFAULT_RUNTIME.now()))
                stop = asker.ask(len(logs), logs[-1].value).stop
                events.append((name, len(logs), stop))
                if stop or len(logs) == EPOCHS:
                    KatibReporter(server.address, trial_name=name).report_logs(logs)
                    asker.tell_end()
                    del running[name]
        with grpc.insecure_channel(server.address) as channel:
            stub = DBManagerStub(channel)
            stored = {
                name: [float(log.value) for log in stub.get(name, timeout_s=60)] for name in {one for one, *_ in events}
            }
    wrong = sum(stop != _rule(policy, events[:at], stored, name, step) for at, (name, step, stop) in enumerate(events))
    best = max(max(values) for values in stored.values())
    return len(events) / (TRIALS * EPOCHS), best, wrong


def _rule(
    policy: Policy, before: list[tuple[str, int, bool]], stored: dict[str, list[float]], name: str, step: int
) -> bool:
    """Compute from the stored rows, and from the order of the questions, whether a trial is to stop."""
    value, options = stored[name][step - 1], policy.options
    if policy.name == "medianstop":
        first = options["start_step"]
        early = [sum(stored[other][:first]) / first for other, at, stop in before if at == EPOCHS and not stop]
        enough = step >= first and len(early) >= options["min_trials_required"]
        return enough and max(stored[name][:step]) < sum(early) / len(early)
    rungs = [options["min_resource"] * options["reduction_factor"] ** power for power in range(20)]
    if step not in rungs:
        return False
    there = [stored[other][step - 1] for other, at, _ in before if at == step]
    return sum(other > value for other in there) >= max(1, (len(there) + 1) // options["reduction_factor"])


# -- what it costs -------------------------------------------------------------------------------------------------


def _answers(url: str) -> tuple[list[float], float]:
    """Return the milliseconds of each answer, and the seconds to the first one after a restart."""
    with db_manager(url) as (_, address):
        with grpc.insecure_channel(address) as channel:
            stub = DBManagerStub(channel)
            for number in range(SIBLINGS):
                epochs = [(step, number / SIBLINGS) for step in range(1, EPOCHS + 1)]
                _ask(stub, f"many-{number}", epochs, has_ended=True)
        times_ms = _ask_each_second(address)
    with db_manager(url) as (_, address):
        start_s = time.monotonic()
        with grpc.insecure_channel(address) as channel:
            _ask(DBManagerStub(channel), "many-after", [(step, 0.9) for step in range(1, EPOCHS + 1)])
        return times_ms, time.monotonic() - start_s


def _ask(stub: DBManagerStub, trial: str, epochs: list[tuple[int, float]], *, has_ended: bool = False) -> None:
    stub.judge(trial, experiment="", policy=JUDGED, run="one", epochs=epochs, has_ended=has_ended, timeout_s=60)


def _ask_each_second(address: str) -> list[float]:
    times_ms: list[float] = []
    begin_s = time.monotonic() + 1

    def train(number: int) -> None:
        with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            stub = DBManagerStub(channel)
            for step in range(1, SECONDS + 1):
                time.sleep(max(0.0, begin_s + step + number / ASKING - time.monotonic()))
                start_s = time.monotonic()
                _ask(stub, f"many-asking{number}", [(step, 0.9)])
                if step > 1:
                    times_ms.append((time.monotonic() - start_s) * 1_000)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(ASKING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times_ms


if __name__ == "__main__":
    run(__doc__, measure, stores="sqlite")
