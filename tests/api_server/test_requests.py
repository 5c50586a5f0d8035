"""The API, asked by hand: who is let in, what is answered, in which order."""

from api_servers import EXPERIMENTS, TRIALS, experiment

from katib_callbacks.local import LocalKatibClient


def test_an_experiment_is_made_run_listed_and_deleted(server):
    status, made = server.ask("POST", EXPERIMENTS, experiment())
    assert (status, made["metadata"]["name"]) == (201, "one")
    assert made["spec"]["trialTemplate"]["successCondition"]  # Katib's defaults are there

    over = server.finished("one")
    assert over["status"]["trialsSucceeded"] == 3
    assert over["metadata"]["uid"] == made["metadata"]["uid"]
    _, trials = server.ask("GET", TRIALS, labelSelector="katib.kubeflow.org/experiment=one")
    assert len(trials["items"]) == 3

    status, deleted = server.ask("DELETE", f"{EXPERIMENTS}/one", {"propagationPolicy": "Background"})
    assert (status, deleted["details"]["uid"]) == (200, made["metadata"]["uid"])
    assert server.ask("GET", f"{EXPERIMENTS}/one")[0] == 404
    assert server.ask("GET", TRIALS)[1]["items"] == []


def test_an_experiment_of_the_api_is_seen_by_the_local_client_and_the_other_way_round(server):
    with LocalKatibClient(home=server.home) as client:
        server.ask("POST", EXPERIMENTS, experiment("theirs"))
        assert client.wait_for_experiment_condition("theirs", timeout=300).status.trials_succeeded == 3

        client.create_experiment(experiment("ours"))
        client.wait_for_experiment_condition("ours", timeout=300)
        _, shown = server.ask("GET", f"{EXPERIMENTS}/ours")
        assert shown["status"]["trialsSucceeded"] == 3
