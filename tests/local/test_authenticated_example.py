"""The example for a cluster, filled in as Katib does, and the token that the API server would give its pod."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("jwt")

from katib_callbacks.db_manager.authentication import RefusedError
from katib_callbacks.db_manager.authentication.service_accounts import ServiceAccountTokens
from katib_callbacks.local.experiment import read_file
from katib_callbacks.local.template import render

sys.path.append(str(Path(__file__).parents[1] / "db_manager"))
from issuers import Issuer, kubernetes_claims

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "experiment-authenticated.yaml"


@pytest.fixture(scope="module")
def issuer():
    with Issuer() as issuer:
        yield issuer


def pod_of(trial_name, namespace):
    template = read_file(EXAMPLE).spec.trial_template
    run_spec = render(template, trial_name=trial_name, namespace=namespace, assignments={"lr": "0.01"})
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


def test_the_token_of_a_trials_pod_is_for_that_trial_alone(issuer):
    judge = ServiceAccountTokens(issuer.url, ca=issuer.ca)
    try:
        _, token = projected_token(pod_of("authenticated-x7k2p", "team-a"), issuer, "team-a")
        grant = judge.authenticate(token)
        assert (grant.trial_names, grant.trial_patterns) == ({"authenticated-x7k2p"}, ())
        assert (grant.namespace, grant.caller) == ("team-a", "system:serviceaccount:team-a:default")
        # The same template in another namespace, and one whose author writes another namespace into the audience.
        _, elsewhere = projected_token(pod_of("authenticated-x7k2p", "team-b"), issuer, "team-b")
        assert judge.authenticate(elsewhere).namespace == "team-b"
        _, forged = projected_token(pod_of("authenticated-x7k2p", "team-a"), issuer, "team-b")
        with pytest.raises(RefusedError, match="another namespace"):
            judge.authenticate(forged)
    finally:
        judge.close()
