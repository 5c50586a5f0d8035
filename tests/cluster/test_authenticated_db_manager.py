"""This package's DB manager in the place of Katib's, with its port for trials: whose token opens what."""

import base64
import json
import os
import sys
from pathlib import Path

import pytest
from clusters import state, values

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "deploy" / "db-manager" / "authenticated"
EXAMPLE = ROOT / "examples" / "cluster" / "experiment-authenticated.yaml"
CONTROL = "kubeflow"

sys.path.append(str(ROOT / "tests"))
from certificates import Authority  # noqa: E402


def bare(one):
    """Return an object as it can be put back."""
    kept = {
        name: one["metadata"][name]
        for name in ("name", "namespace", "labels", "annotations")
        if name in one["metadata"]
    }
    return {name: value for name, value in one.items() if name != "status"} | {"metadata": kept}


@pytest.fixture(scope="module")
def authenticated(cluster, tmp_path_factory):
    """Put our DB manager in the place of Katib's, and Katib's back after these tests."""
    image = os.environ.get("KATIB_CALLBACKS_TEST_DB_MANAGER_IMAGE")
    if not image:
        pytest.skip("KATIB_CALLBACKS_TEST_DB_MANAGER_IMAGE names no image of deploy/db-manager/Dockerfile")
    if not cluster.can("get", "deployment", "katib-db-manager", "-n", CONTROL):
        pytest.skip(f"there is no deployment katib-db-manager in {CONTROL} to be replaced")
    before = [bare(cluster.get(kind, "katib-db-manager", namespace=CONTROL)) for kind in ("deployment", "service")]
    issuer = json.loads(cluster.run("get", "--raw", "/.well-known/openid-configuration"))["issuer"]
    authority = Authority()
    pair = authority.issue("katib-db-manager.kubeflow", "katib-db-manager.kubeflow.svc")
    encoded = {"tls.key": pair.key, "tls.crt": pair.certificate}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "katib-db-manager-tls", "namespace": CONTROL},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(content).decode() for name, content in encoded.items()},
    }
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "katib-db-manager-ca", "namespace": cluster.namespace},
        "data": {"ca.crt": authority.certificate.decode()},
    }
    text = cluster.run("kustomize", str(OVERLAY))
    text = text.replace("https://kubernetes.default.svc.cluster.local", issuer)
    rendered = tmp_path_factory.mktemp("overlay") / "all.yaml"
    name, _, tag = image.rpartition(":")
    lines = [
        f"{line.partition('image:')[0]}image: {name}:{tag}" if "image: registry.example.com/" in line else line
        for line in text.splitlines()
    ]
    rendered.write_text("\n".join(lines), encoding="utf-8")
    try:
        for one in (secret, config_map):
            cluster.run("apply", "-f", "-", stdin=json.dumps(one))
        cluster.run("apply", "--server-side", "--force-conflicts", "-f", str(rendered))
        cluster.run("rollout", "status", "deployment/katib-db-manager", "-n", CONTROL, "--timeout=600s")
        yield cluster
    finally:
        for one in before:
            cluster.run("replace", "-f", "-", stdin=json.dumps(one))
        cluster.delete("poddisruptionbudget", "katib-db-manager", namespace=CONTROL)
        cluster.delete("secret", "katib-db-manager-tls", namespace=CONTROL)
        cluster.delete("configmap", "katib-db-manager-ca")
        cluster.run("rollout", "status", "deployment/katib-db-manager", "-n", CONTROL, "--timeout=600s")


def with_audience(one, audience):
    text = json.dumps(one)
    asked = "katib-trial:${trialParameters.trialNamespace}/${trialParameters.trialName}"
    assert asked in text
    made = json.loads(text.replace(asked, audience))
    references = made["spec"]["trialTemplate"]["trialParameters"]
    kept = [entry for entry in references if f"trialParameters.{entry['name']}}}" in json.dumps(made)]
    made["spec"]["trialTemplate"]["trialParameters"] = kept
    return made


def test_a_trials_own_token_lets_it_report(authenticated, submit):
    _, (trial,) = submit(authenticated.experiment(EXAMPLE))

    assert state(trial) == "Succeeded", authenticated.log(trial)
    assert 0 < float(values(trial)["accuracy"]) <= 1


@pytest.mark.parametrize(
    "audience",
    ["katib-trial:${trialParameters.trialNamespace}/another-x7k2p", "another-service"],
    ids=["trial", "service"],
)
def test_another_tokens_trial_reports_nothing_and_the_log_says_so(authenticated, submit, audience):
    one = with_audience(authenticated.experiment(EXAMPLE), audience)

    _, (trial,) = submit(one)

    assert state(trial) == "MetricsUnavailable"
    logs = authenticated.run("logs", "-n", CONTROL, "-l", "katib.kubeflow.org/component=db-manager", "--tail=-1")
    assert trial["metadata"]["name"] in logs or "credential" in logs
    assert "ReportObservationLog" in logs


def test_trials_without_a_token_report_to_katibs_own_port_as_before(authenticated, submit):
    program = "from katib_callbacks import report_metrics; report_metrics({'value': 7})"

    _, (trial,) = submit(authenticated.script("plain", f'python -c "{program}"'))

    assert state(trial) == "Succeeded", authenticated.log(trial)
    assert float(values(trial)["value"]) == 7
