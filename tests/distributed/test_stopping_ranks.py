"""Early stopping on two ranks: both end well and together, and neither hangs, whoever is away."""

import os
import signal
from collections import Counter

import pytest

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.settings import Runtime
from katib_callbacks.settings.early_stopping import parse_policy
from katib_callbacks.sinks.katib import asking
from katib_callbacks.sinks.katib.endpoint import Endpoint

POLICY = "asha,objective=score,type=maximize"
SIBLINGS = {"KATIB_CALLBACKS_EXPERIMENT": "scores"}
TEMPLATE = {"KATIB_CALLBACKS_EARLY_STOPPING": POLICY, **SIBLINGS}
FOREVER = "1000000"
LIGHTNING = {"lightning", "fsdp"}
"""Where ``strategy.reduce`` is a barrier and a reduction."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Time enough for the test's own questions."""
    monkeypatch.setattr(asking, "TIMEOUT_S", 60.0)


def hand_in_a_better_one(address):
    policy = parse_policy("policy", POLICY)
    sibling = asking.Asker(Endpoint(address), "sibling", policy, Runtime(environ=lambda: SIBLINGS))
    assert not sibling.ask(1, 9.0).stop


@pytest.fixture
def calls(monkeypatch):
    """The calls that the DB manager answers, by method."""
    calls = Counter()
    monkeypatch.setattr(ServerMetrics, "call", lambda _, method, *__: calls.update([method]))
    return calls


@pytest.fixture
def start(trial, free_port):
    """Start two processes, as a job's pods."""

    def start(framework, *options, **variables):
        for rank in ("0", "1"):
            job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            job |= {"RANK": rank, "LOCAL_RANK": rank}
            if variables.get("KERAS_BACKEND") == "jax":
                job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port}", "JAX_NUM_PROCESSES": "2"}
                job |= {"JAX_PROCESS_ID": rank}
            trial.start("stopping_trial.py", framework, *options, name=f"rank-{rank}", **job, **variables)

    return start


@pytest.mark.parametrize(
    ("framework", "backend"),
    [("lightning", ""), ("fsdp", ""), ("transformers", ""), ("keras", "torch"), ("keras", "jax")],
)
def test_both_ranks_end_well_and_without_a_policy_nothing_is_asked(
    trial, start, katib_db_manager, calls, framework, backend
):
    hand_in_a_better_one(katib_db_manager.address)
    calls.clear()
    if backend == "jax":
        start(framework, "--patient", KERAS_BACKEND=backend, **SIBLINGS)
    else:
        trial.torchrun("stopping_trial.py", framework, "--patient", KERAS_BACKEND=backend or "torch", **SIBLINGS)
    trial.wait()

    assert calls == {"ReportObservationLog": 2, "Judge": 1}
    assert trial.rows() == [("score", 2.0), ("score", 1.0)]  # without a policy after both epochs, with it after one
    told = trial.testimonies()
    assert [told[rank]["receipt"] for rank in (0, 1)] == ["delivered 1", None]
    assert told[0]["with a policy"]["has_last_checkpoint"]  # another rank may look before it is written
    for rank in (0, 1):
        policy, silent = told[rank]["with a policy"], told[rank]["without a policy"]
        assert (policy["epochs"], silent["epochs"]) == (1, 2)
        assert silent["collectives"] == told[rank]["without us"]["collectives"]
        assert policy["collectives"] == told[rank]["one epoch"]["collectives"] + (2 if framework in LIGHTNING else 1)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_while_they_agree_leaves_no_other_hanging(trial, start, victim):
    trial.door.hold()
    start("lightning", "--patient", "--epochs", FOREVER, "--beacon-at", "1", **TEMPLATE)
    trial.until(lambda: trial.beacon(0) and trial.beacon(1) and trial.door.visitors, "one to ask", watch=True)
    os.kill(trial.beacon(victim), signal.SIGKILL)
    trial.door.open()

    assert all(trial.statuses())
    assert trial.rows() == []


def test_a_db_manager_that_hangs_holds_nobody_up_and_what_it_missed_is_judged_later(trial, start, katib_db_manager):
    hand_in_a_better_one(katib_db_manager.address)
    trial.door.hold()
    start("lightning", "--epochs", FOREVER, "--beacon-at", "2", **TEMPLATE)
    trial.until(lambda: trial.beacon(0) and trial.beacon(1), "both ranks to go on", watch=True)
    trial.door.open()
    trial.wait()

    assert_stopped_after_the_first(trial)


def test_a_db_manager_that_restarts_has_lost_nothing(trial, tmp_path, free_port):
    db, address = tmp_path / "restarted.db", f"127.0.0.1:{free_port}"
    with DBManager(db, address):
        hand_in_a_better_one(address)
    variables = {"KERAS_BACKEND": "torch", "KATIB_DB_MANAGER_ADDRESS": address, **TEMPLATE}
    trial.torchrun("stopping_trial.py", "keras", "--epochs", FOREVER, "--beacon-at", "2", **variables)
    trial.until(lambda: trial.beacon(0) and trial.beacon(1), "both ranks to go on", watch=True)
    with DBManager(db, address):
        trial.wait()

    assert_stopped_after_the_first(trial)


def assert_stopped_after_the_first(trial):
    told = trial.testimonies()
    assert told[0]["receipt"] == "delivered 1"
    assert told[0]["with a policy"]["epochs"] == told[1]["with a policy"]["epochs"] > 1
    assert any("1 at epoch 1, not among the best 1 of 2 trials at rung 1 (asha)" in line for line in told[0]["said"])
