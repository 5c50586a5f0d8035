"""Early stopping by a real DB manager on every store: what it answers, and that each answer stands."""

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest
from sqlalchemy import create_engine, inspect, make_url
from trials import hashed, new_token, refusal

from katib_callbacks import KatibReporter, MetricLog
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.stopping import judge, records
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime
from katib_callbacks.settings.early_stopping import parse_policy
from katib_callbacks.sinks.katib import asking
from katib_callbacks.sinks.katib.asking import Asker
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.wire import extension, methods

DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "postgresql": "postgresql+psycopg"}
MEDIAN = "medianstop,min_trials_required=2,start_step=2,type=maximize"
ASHA = "asha,reduction_factor=2,type=minimize"

START_STEP, MIN_TRIALS = 4, 3


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Time enough for a busy machine."""
    monkeypatch.setattr(asking, "TIMEOUT_S", 60.0)


def asker(address, trial_name, policy=MEDIAN, runtime=DEFAULT_RUNTIME):
    return Asker(Endpoint(address), trial_name, parse_policy("policy", policy), runtime)


def succeed(address, trial_name, *values, policy=MEDIAN):
    one = asker(address, trial_name, policy)
    answers = [one.ask(step, value) for step, value in enumerate(values, start=1)]
    one.tell_end()
    return answers


@pytest.fixture
def siblings(server):
    """The server, with two trials of experiment e that succeeded; the mean of their first two objectives is 0.6."""
    succeed(server.address, "e-1", 0.4, 0.6, 0.9)
    succeed(server.address, "e-2", 0.6, 0.8)
    return server


@pytest.fixture
def tables(database_url):
    url = make_url(database_url)
    engine = create_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))

    def rows(table):
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(table.select())] if has(table) else None

    def has(table):
        return inspect(engine).has_table(table.name)

    yield rows
    engine.dispose()


# -- policies ------------------------------------------------------------------------------------------------------


def test_medianstop_ends_a_trial_whose_best_is_below_its_siblings_mean(siblings):
    one = asker(siblings.address, "e-3")

    answers = [one.ask(1, 0.5), one.ask(2, 0.3), one.ask(3, 0.9)]

    assert [answer.stop for answer in answers] == [False, True, True]  # nothing is asked any more
    assert answers[1].reason == "0.5 at epoch 2, median of 2 trials is 0.6 (medianstop)"


def test_medianstop_lets_a_trial_run_that_was_once_better(siblings):
    one = asker(siblings.address, "e-3")

    assert [one.ask(1, 0.61).stop, one.ask(2, 0.1).stop, one.ask(3, 0.1).stop] == [False] * 3


@pytest.mark.parametrize("trials", [["e-1"], ["e-1", "other-2"], ["e-1", "e-2-2"]])
def test_medianstop_waits_for_enough_trials_of_the_experiment(server, trials):
    for trial in trials:
        succeed(server.address, trial, 0.9, 0.9)
    one = asker(server.address, "e-3")

    assert not any(one.ask(step, 0.1).stop for step in range(1, 5))


def test_a_trial_that_runs_or_was_stopped_is_no_sibling_that_succeeded(siblings):
    running, stopped, one = (asker(siblings.address, name) for name in ("e-3", "e-4", "e-5"))
    assert not any([running.ask(1, 9.0).stop, running.ask(2, 9.0).stop])
    assert [stopped.ask(1, 0.0).stop, stopped.ask(2, 0.0).stop] == [False, True]
    stopped.tell_end()

    assert [one.ask(1, 0.61).stop, one.ask(2, 0.61).stop] == [False, False]


def test_asha_lets_the_best_half_of_each_rung_go_on(server):
    def run(number, value):
        one = asker(server.address, f"e-{number}", ASHA)
        answers = [one.ask(step, value + step / 100) for step in range(1, 9)]
        return next((step for step, answer in enumerate(answers, start=1) if answer.stop), None), answers[-1].reason

    ends = [run(number, value) for number, value in enumerate([5, 4, 6, 3, 3.5, 3.6])]

    assert [end for end, _ in ends] == [None, None, 1, None, None, 2]
    assert ends[2][1] == "6.01 at epoch 1, not among the best 1 of 3 trials at rung 1 (asha)"
    assert ends[5][1] == "3.62 at epoch 2, not among the best 2 of 5 trials at rung 2 (asha)"


def learning_curves(seed, trials=24, epochs=12):
    draw = random.Random(seed)  # noqa: S311  learning curves
    return {
        f"replay-{number}": [round(end * (1 - 0.7**epoch) + draw.gauss(0, 0.03), 6) for epoch in range(1, epochs + 1)]
        for number, end in enumerate(draw.uniform(0.3, 1) for _ in range(trials))
    }


@pytest.mark.parametrize("policy", ["medianstop,type=maximize", "asha,type=maximize"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_trial_is_stopped_that_the_rule_would_have_let_run(server, policy, seed):
    """Four trials at a time; what the server said is compared with what follows from the rows that it holds."""
    curves, waiting, running, events = learning_curves(seed), [], {}, []
    waiting = list(curves)
    while waiting or running:
        while waiting and len(running) < 4:
            name = waiting.pop(0)
            running[name] = asker(server.address, name, policy), []
        for name, (one, logs) in list(running.items()):
            value = curves[name][len(logs)]
            log = MetricLog("accuracy", value, DEFAULT_RUNTIME.now())
            logs.append(log)
            is_stopped = one.ask(len(logs), value).stop
            events.append((name, len(logs), is_stopped))
            if is_stopped or len(logs) == len(curves[name]):
                KatibReporter(server.address, trial_name=name).report_logs(logs)
                one.tell_end()
                del running[name]

    stored = {name: history(server, name) for name in curves}
    expected = [
        (name, step, decide(events[:at], stored, name, step, policy)) for at, (name, step, _) in enumerate(events)
    ]
    assert events == expected
    assert 1 < sum(is_stopped for *_, is_stopped in events) < len(curves)


def history(server, name):
    with grpc.insecure_channel(server.address) as channel:
        from katib_callbacks.wire.client import DBManagerStub  # noqa: PLC0415  one use

        return [float(log.value) for log in DBManagerStub(channel).get(name, timeout_s=60)]


def decide(before, stored, name, step, policy):
    """Compute anew whether a trial is to stop, from the stored rows and the order in which things happened."""
    values = stored[name][:step]
    if policy.startswith("medianstop"):
        ended = [other for other, at, is_stopped in before if not is_stopped and at == len(stored[other]) == 12]
        early = [sum(stored[other][:START_STEP]) / START_STEP for other in ended]
        return step >= START_STEP and len(early) >= MIN_TRIALS and max(values) < sum(early) / len(early)
    if step not in {1, 3, 9}:
        return False
    there = [stored[other][step - 1] for other, at, _ in before if at == step] + [values[-1]]
    return sum(value > values[-1] for value in there) >= max(1, len(there) // 3)


# -- answers stand -------------------------------------------------------------------------------------------------


def send(address, **fields):
    fields = {"trial_name": "e-3", "policy": MEDIAN, "run": "one", **fields}
    fields["epochs"] = [extension.Epoch(step=step, value=value) for step, value in fields.get("epochs", [])]
    with grpc.insecure_channel(address) as channel:
        reply = channel.unary_unary(methods.JUDGE)(extension.JudgeRequest(**fields).SerializeToString(), timeout=60)
    return extension.JudgeReply.FromString(reply).stop


def test_a_question_that_comes_again_has_the_same_answer_and_counts_once(siblings, tables):
    first = [send(siblings.address, epochs=[(1, 0.1)]) for _ in range(3)]
    second = [send(siblings.address, epochs=[(2, 0.2)]) for _ in range(3)]
    late = send(siblings.address, epochs=[(1, 0.9)])

    assert (first, second, late) == ([False] * 3, [True] * 3, True)
    assert sorted(row[2:] for row in tables(records.VALUES) if row[0] == "e-3") == [(1, 0.1), (2, 0.2)]


def test_a_decision_outlives_a_restart_of_the_server(siblings, database_url):
    send(siblings.address, epochs=[(1, 0.1)])
    with DBManager(database_url) as other:  # beside the first one, as during a rollout
        assert send(other.address, epochs=[(2, 0.2)])
    siblings.stop()
    siblings.start()
    assert send(siblings.address, epochs=[(2, 0.2)])
    assert not send(siblings.address, trial_name="e-4", epochs=[(1, 0.7), (2, 0.7)])
    assert send(siblings.address, trial_name="e-5", epochs=[(1, 0.1), (2, 0.1)])


def test_epochs_that_were_not_answered_are_judged_with_the_next_one(siblings):
    assert send(siblings.address, epochs=[(1, 0.1), (2, 0.2), (3, 0.9)])


def test_another_run_of_a_trial_replaces_what_the_first_said_of_its_epochs(siblings):
    send(siblings.address, epochs=[(1, 0.1), (2, 0.7), (3, 0.7)])

    assert not send(siblings.address, run="two", epochs=[(1, 0.1)])
    assert send(siblings.address, run="two", epochs=[(2, 0.2)])  # 0.7 is forgotten


def test_a_resumed_run_goes_on_with_the_epochs_before_its_first(siblings):
    send(siblings.address, epochs=[(1, 0.7), (2, 0.1), (3, 0.1)])

    assert not send(siblings.address, run="two", epochs=[(3, 0.2)])  # 0.7 is still its best
    assert send(siblings.address, run="three", epochs=[(1, 0.2), (2, 0.2)])


def test_old_trials_that_never_reported_are_forgotten_where_old_rows_are_deleted(
    database_url, tables, monkeypatch, open_raw
):
    with DBManager(database_url) as server:
        for days_ago, name in [(40, "old"), (0, "new")]:
            asked_s = time.time() - days_ago * 86_400
            monkeypatch.setattr(judge, "time", SimpleNamespace(time=lambda asked_s=asked_s: asked_s))
            for policy in (MEDIAN, ASHA):
                assert not asker(server.address, f"{name}-{policy[:4]}", policy).ask(1, 0.5).stop
        open_raw(server).report("new-asha", ("2020-01-01T00:00:00Z", "loss", "1"))  # of an attempt before
    with DBManager(database_url, retention_days=30) as server:
        end_s = time.monotonic() + 60
        while any("old" in str(row) for table in records.TABLES for row in tables(table)):
            assert time.monotonic() < end_s
            time.sleep(0.05)
    assert sorted(row[2] for row in tables(records.TRIALS)) == ["new-asha", "new-medi"]
    assert [len(tables(table)) for table in (records.VALUES, records.RUNGS)] == [2, 1]
    with DBManager(database_url) as server:
        assert len(open_raw(server).get("new-asha")) == 1


def test_a_trial_that_is_deleted_is_no_sibling_any_more(siblings, stub_of, raw, tables):
    stub_of(siblings).delete("e-1", timeout_s=60)  # as previous_attempt="clear" does: the trial goes on
    assert send(siblings.address, epochs=[(1, 0.1), (2, 0.1)])
    from katib_callbacks.wire import messages  # noqa: PLC0415  one use

    raw.send(methods.DELETE_OBSERVATION_LOG, messages.DeleteObservationLogRequest(trial_name="e-1"))

    assert not send(siblings.address, trial_name="e-4", epochs=[(1, 0.1), (2, 0.1)])
    assert {row[0] for row in tables(records.VALUES)} == {"e-2", "e-3", "e-4"}


def test_there_is_no_table_before_the_first_question(server, tables):
    KatibReporter(server.address, trial_name="e-1").report({"loss": 1.0})
    assert [tables(table) for table in records.TABLES] == [None] * 3


def test_many_trials_ask_at_once(siblings):
    askers = [asker(siblings.address, f"e-{number}") for number in range(10, 50)]

    work = [[(number, one, step) for step in (1, 2, 3)] for number, one in enumerate(askers)]
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda part: [one.ask(s, 0.1 if n % 2 else 0.7).stop for n, one, s in part], work))
    assert answers == [[False, number % 2 == 1, number % 2 == 1] for number in range(40)]


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": []},
        {"epochs": [(0, 0.1)]},
        {"epochs": [(2, 0.1), (1, 0.1)]},
        {"epochs": [(1, float("nan"))]},
        {"epochs": [(2**60, 0.1)]},
        {"epochs": [(1, 0.1)], "trial_name": ""},
        {"epochs": [(1, 0.1)], "experiment": "x" * 256},
        {"epochs": [(1, 0.1)], "run": ""},
        {"epochs": [(1, 0.1)], "run": "a b"},
        {"epochs": [(1, 0.1)], "policy": "medianstop"},
        {"epochs": [(1, 0.1)], "policy": "hyperband,type=minimize"},
        {"epochs": [(1, 0.1)], "policy": "medianstop,type=minimize," + "x" * 1_000},
    ],
    ids=str,
)
def test_a_question_that_cannot_be_one_is_refused(server, fields):
    status, _ = refusal(send, server.address, **fields)
    assert status == "INVALID_ARGUMENT"
    assert not send(server.address, epochs=[(1, 0.1)])


# -- the trial listener --------------------------------------------------------------------------------------------


def test_a_token_asks_for_its_own_trial_and_its_own_experiment_only(trials, database_url):
    tokens = {team: new_token() for team in ("a", "b")}
    trials.write_tokens(*(hashed(team, tokens[team], "e-*", namespace=team) for team in tokens))
    with DBManager(database_url, trial_listener=trials.listener()) as server:
        clients = {team: trials.client(server, tokens[team]) for team in tokens}

        def ask(team, trial, *values, experiment="", has_ended=False):
            epochs = [extension.Epoch(step=step, value=value) for step, value in enumerate(values, start=1)]
            request = extension.JudgeRequest(
                trial_name=trial, experiment=experiment, policy=MEDIAN, run=team, epochs=epochs, has_ended=has_ended
            )
            return extension.JudgeReply.FromString(clients[team].send(methods.JUDGE, request)).stop

        for trial in ("e-1", "e-2"):
            ask("a", trial, 0.9, 0.9, has_ended=True)
        assert not ask("b", "e-3", 0.1, 0.1)  # another namespace's trials are no siblings
        assert not ask("b", "e-4", 0.1, 0.1, experiment="e")
        assert refusal(ask, "b", "e-5", 0.1, experiment="f")[0] == "PERMISSION_DENIED"
        assert refusal(ask, "a", "f-1", 0.1)[0] == "PERMISSION_DENIED"
        assert ask("a", "e-3", 0.1, 0.1)  # team b's of this name changed nothing
        assert not ask("b", "e-3", 0.1, 0.1)


# -- a server that does not answer ---------------------------------------------------------------------------------


@contextmanager
def scripted(answer):
    """Serve ``answer(request, context)``; yields the address and the requests that came."""
    requests, lock = [], threading.Lock()

    def handle(request, context):
        with lock:
            requests.append(extension.JudgeRequest.FromString(request))
        return answer(requests[-1], context).SerializeToString()

    with ThreadPoolExecutor(4) as workers:
        server = grpc.server(workers)
        service, _, method = methods.JUDGE.strip("/").partition("/")
        handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(handle)})
        server.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield address, requests
        server.stop(None).wait()


def steps(requests):
    return [[epoch.step for epoch in request.epochs] for request in requests]


def test_katibs_own_db_manager_is_asked_once(caplog):
    with ThreadPoolExecutor(1) as workers:
        server = grpc.server(workers)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        one = asker(address, "e-1")
        answers = [one.ask(step, 0.1).stop for step in range(1, 5)]
        one.tell_end()
        server.stop(None).wait()

    assert answers == [False] * 4
    (line,) = caplog.messages
    assert "does not know early stopping, as Katib's own does not" in line


def test_a_server_that_hangs_costs_one_question_and_is_left_alone_for_a_while(caplog, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
    hanging, clock = threading.Event(), [0.0]

    def answer(_request, _context):
        if not hanging.is_set():
            hanging.wait(30)
            clock[0] += 1
        return extension.JudgeReply(stop=len(requests) > 1)

    def monotonic():
        clock[0] += 0.15  # two looks a question: each takes as long as a hanging one
        return clock[0]

    with scripted(answer) as (address, requests):
        one = asker(address, "e-1", runtime=Runtime(monotonic=monotonic))
        answers = [one.ask(step, 0.1).stop for step in (1, 2, 3)]
        assert (answers, steps(requests)) == ([False] * 3, [[1]])
        hanging.set()
        clock[0] += 100
        monkeypatch.setattr(asking, "TIMEOUT_S", 60.0)
        assert one.ask(4, 0.1).stop
        assert steps(requests) == [[1], [1, 2, 3, 4]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_answer_that_was_lost_is_asked_for_again(caplog):
    def answer(request, context):
        if len(requests) == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Stream removed")
        return extension.JudgeReply(stop=len(request.epochs) == 2, reason="2 at epoch 2")

    with scripted(answer) as (address, requests):
        one = asker(address, "e-1", runtime=Runtime(monotonic=lambda: 0.0))
        answers = [one.ask(step, 0.1) for step in (1, 2, 3, 4)]

    assert [answer.stop for answer in answers] == [False, False, True, True]
    assert steps(requests) == [[1], [2], [2, 3]]
    assert len(caplog.records) == 1


def test_an_experiment_goes_on_where_a_server_that_was_killed_left_it(start_process, closed_port):
    server = start_process(f"127.0.0.1:{closed_port}")
    succeed(server.address, "e-1", 0.4, 0.6)
    succeed(server.address, "e-2", 0.6, 0.8)
    bad, good, fresh = (
        asker(server.address, f"e-{name}", runtime=Runtime(monotonic=lambda: 0.0)) for name in ("bad", "good", "fresh")
    )
    assert not bad.ask(1, 0.1).stop
    assert not good.ask(1, 0.7).stop

    server.process.kill()
    server.finish()
    assert not bad.ask(2, 0.1).stop  # nobody says so
    assert not good.ask(2, 0.1).stop
    assert not fresh.ask(1, 0.1).stop
    server = start_process(server.address)

    assert bad.ask(3, 0.1).reason == "0.1 at epoch 2, median of 2 trials is 0.6 (medianstop)"
    assert not good.ask(3, 0.1).stop
    assert fresh.ask(2, 0.1).stop


# -- the recorder --------------------------------------------------------------------------------------------------


def recorder(server, name, **options):
    environ = {"KATIB_TRIAL_NAME": name, "KATIB_DB_MANAGER_ADDRESS": server.address, **options}
    return MetricRecorder({"accuracy": "acc"}, _runtime=Runtime(environ=lambda: environ))


def train(one, *values):
    one.start(framework_rank(is_global_zero=True, rank=0))
    for step, value in enumerate(values, start=1):
        one.record({"acc": value}, row=step)
        if one.is_to_stop(step):
            break
    one.finish()
    one.deliver()
    return one.receipt


def test_a_receipt_says_why_a_training_was_stopped_and_a_later_trial_is_compared(siblings, caplog):
    early = {"KATIB_CALLBACKS_EARLY_STOPPING": MEDIAN}

    stopped = train(recorder(siblings, "e-3", **early), 0.1, 0.2, 0.3)
    assert stopped.stopped == "0.2 at epoch 2, median of 2 trials is 0.6 (medianstop)"
    assert [line for line in caplog.messages if "ends this training early, at 2: 0.2 at epoch 2" in line]
    assert history(siblings, "e-3") == [0.2]

    assert train(recorder(siblings, "e-4", **early), 0.9, 0.9, 0.9).stopped is None
    three = train(recorder(siblings, "e-5", **early), 0.1, 0.2, 0.3)
    assert three.stopped == "0.2 at epoch 2, median of 3 trials is 0.7 (medianstop)"


@pytest.mark.logs_error(
    "^katib_callbacks.recording.recorder: Internal error while recording metrics; training goes on."
)
def test_a_mistake_of_ours_in_a_question_stays_away_from_the_training(server, monkeypatch):
    monkeypatch.setattr(Asker, "ask", lambda *_: 1 / 0)
    assert train(recorder(server, "e-3", KATIB_CALLBACKS_EARLY_STOPPING=MEDIAN), 0.1, 0.2).delivered == 1


def test_without_a_policy_nothing_is_asked(server, tables):
    receipt = train(recorder(server, "e-3"), 0.1, 0.2, 0.3)
    assert (receipt.stopped, receipt.attempts, tables(records.TRIALS)) == (None, 1, None)


def test_an_epoch_without_a_finite_objective_is_not_asked_about(siblings, tables):
    one = recorder(siblings, "e-3", KATIB_CALLBACKS_EARLY_STOPPING=MEDIAN)
    one.start(framework_rank(is_global_zero=True, rank=0))
    one.record({"acc": 0.1}, row=1)
    one.ask(1)
    one.record({"acc": float("nan")}, row=2)
    assert not one.ask(2).stop
    one.record({"other": 1.0}, row=3)
    assert not one.ask(3).stop
    one.abandon()
    assert [row[2] for row in tables(records.VALUES) if row[0] == "e-3"] == [1]
