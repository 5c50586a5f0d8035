"""The example for a cluster, filled in as Katib does, and the token that the API server would give its pod."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("jwt")

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager
from katib_callbacks.errors import RejectedError
from katib_callbacks.local.api.manifest import read_file
from katib_callbacks.local.trials.template import TrialTemplate

sys.path.append(str(Path(__file__).parents[1] / "db_manager"))
from issuers import Issuer, kubernetes_claims
from trials import Trials, refusal

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "experiment-authenticated.yaml"


@pytest.fixture(scope="module")
def issuer():
    with Issuer() as issuer:
        yield issuer


def pod_of(trial_name, namespace):
    manifest = read_file(EXAMPLE).serialize()
    manifest["metadata"]["namespace"] = namespace
    run_spec = TrialTemplate.of(manifest).render(trial_name, {"lr": "0.01"})
    return run_spec["spec"]["template"]["spec"]


def projected_token(pod, issuer, namespace):
    """Return the path at which a pod finds its token, and the token that the kubelet fetches for it."""
    (container,) = pod["containers"]
    (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    (source,) = volume["projected"]["sources"]
    wanted = source["serviceAccountToken"]
    claims = kubernetes_claims(
        issuer.url, wanted["audience"], namespace=namespace, lifetime_s=wanted["expirationSeconds"]
    )
    return f"{mount['mountPath']}/{wanted['path']}", issuer.keys[-1].sign(claims)


def environment(pod):
    (container,) = pod["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_nothing_is_left_to_fill_in():
    assert "${" not in str(pod_of("authenticated-x7k2p", "team-a"))


def test_the_pods_variables_name_what_is_mounted(issuer):
    pod = pod_of("authenticated-x7k2p", "team-a")
    variables = environment(pod)
    path, _ = projected_token(pod, issuer, "team-a")
    assert variables["KATIB_CALLBACKS_TOKEN_PATH"] == path
    (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    (container,) = pod["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert variables["KATIB_CALLBACKS_TLS_CA"] == f"{mount['mountPath']}/ca.crt"
    assert variables["KATIB_DB_MANAGER_ADDRESS"].endswith(":6790")
    assert pod["automountServiceAccountToken"] is False


@pytest.fixture
def site(tmp_path, issuer):
    """A DB manager with a trial listener, and the folder in which its files are."""
    with Trials(tmp_path) as trials:
        listener = trials.listener(oidc_issuer=issuer.url, oidc_ca=issuer.ca)
        with DBManager(f"sqlite:///{tmp_path}/katib.db", trial_listener=listener) as db_manager:
            yield trials, db_manager


def test_the_token_of_a_trials_pod_is_for_that_trial_alone(site, issuer):
    trials, db_manager = site
    _, token = projected_token(pod_of("authenticated-x7k2p", "team-a"), issuer, "team-a")
    client = trials.client(db_manager, token)
    client.report("authenticated-x7k2p")
    assert len(client.get("authenticated-x7k2p")) == 1
    assert refusal(client.report, "authenticated-abcde")[0] == "PERMISSION_DENIED"
    assert refusal(client.get, "authenticated-abcde")[0] == "PERMISSION_DENIED"
    assert refusal(client.delete, "authenticated-x7k2p")[0] == "PERMISSION_DENIED"

    # The same template in another namespace, and one whose author wrote another namespace than its own.
    _, elsewhere = projected_token(pod_of("authenticated-x7k2p", "team-b"), issuer, "team-b")
    assert refusal(trials.client(db_manager, elsewhere).report, "authenticated-x7k2p")[0] == "PERMISSION_DENIED"
    _, forged = projected_token(pod_of("authenticated-x7k2p", "team-a"), issuer, "team-b")
    assert refusal(trials.client(db_manager, forged).report, "authenticated-x7k2p")[0] == "UNAUTHENTICATED"
    assert len(client.get("authenticated-x7k2p")) == 1


def test_the_callbacks_report_with_the_pods_variables_alone(site, issuer, monkeypatch):
    trials, db_manager = site
    pod = pod_of("authenticated-x7k2p", "team-a")
    path, token = projected_token(pod, issuer, "team-a")
    files = {
        "KATIB_CALLBACKS_TOKEN_PATH": trials.write(Path(path).name, token.encode()),
        "KATIB_CALLBACKS_TLS_CA": trials.path("ca.pem"),
    }
    # What differs on this machine: where the volumes are, and what the name of Katib's service leads to.
    here = {name: str(file) for name, file in files.items()} | {"KATIB_DB_MANAGER_ADDRESS": db_manager.trial_address}
    variables = environment(pod)
    assert set(here) == set(variables)
    for name in variables:
        monkeypatch.setenv(name, here[name])

    monkeypatch.setenv("KATIB_TRIAL_NAME", "authenticated-x7k2p")  # by Katib's webhook
    with KatibReporter.from_env() as reporter:
        assert reporter.report({"accuracy": 0.9}).delivered == 1
    monkeypatch.setenv("KATIB_TRIAL_NAME", "authenticated-abcde")
    with KatibReporter.from_env() as reporter, pytest.raises(RejectedError):
        reporter.report({"accuracy": 1})
    client = trials.client(db_manager, token)
    assert [value for _, _, value in client.get("authenticated-x7k2p")] == ["0.9"]
