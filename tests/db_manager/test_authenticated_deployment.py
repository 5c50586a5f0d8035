"""The manifests of the trial port and of its fence: they fit one another, the server's flags and Katib's labels."""

import argparse
import hashlib
import re
from pathlib import Path

import pytest

from katib_callbacks.cli.db_manager import KATIB_LISTEN_ADDRESS, add_arguments
from katib_callbacks.db_manager.authentication.token_file import TokenFile

yaml = pytest.importorskip("yaml", reason="`databases` has it")

DEPLOY = Path(__file__).parents[2] / "deploy" / "db-manager"
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "experiment-authenticated.yaml"

KATIBS_PODS = {
    "controller": ("kubeflow", {"katib.kubeflow.org/component": "controller"}),
    "ui": ("kubeflow", {"katib.kubeflow.org/component": "ui", "sidecar.istio.io/inject": "false"}),
    "suggestion and early stopping": (
        "team-a",
        {
            "katib.kubeflow.org/deployment": "digits-tpe",
            "katib.kubeflow.org/experiment": "digits",
            "katib.kubeflow.org/suggestion": "digits",
        },
    ),
    "trial": ("team-a", {"katib.kubeflow.org/experiment": "digits", "katib.kubeflow.org/trial": "digits-x7k2p"}),
    "another": ("team-a", {"app": "notebook"}),
    "another of the namespace": ("kubeflow", {"app": "notebook"}),
    "one that calls itself a component": ("team-a", {"katib.kubeflow.org/component": "ui"}),
}
"""Namespace and labels of pods as Katib v0.19.0 makes them: manifests/v1beta1/components/{controller,ui},
pkg/controller.v1beta1/util/labels.go, and what its pod webhook adds to a trial's pods (pkg/webhook/v1beta1/pod)."""


def read(name):
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def selects(selector, labels):
    """Say whether a label selector of Kubernetes, as far as these manifests use them, selects a pod."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", ()):
        key, operator = expression["key"], expression["operator"]
        assert operator in {"In", "Exists"}
        if key not in labels or (operator == "In" and labels[key] not in expression["values"]):
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def admits(policy, pod, port):
    namespace, labels = KATIBS_PODS[pod]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for rule in policy["spec"]["ingress"]:
        if {"port": port, "protocol": "TCP"} not in rule["ports"]:
            continue
        if "from" not in rule:
            return True
        for peer in rule["from"]:
            assert set(peer) <= {"namespaceSelector", "podSelector"}
            in_namespace = namespace == policy["metadata"]["namespace"]
            if "namespaceSelector" in peer:
                assert peer["namespaceSelector"] == {}  # all of them
                in_namespace = True
            if in_namespace and selects(peer["podSelector"], labels):
                return True
    return False


@pytest.mark.parametrize("name", ["network-policy.yaml", "metrics-collectors.yaml"])
def test_a_policy_is_about_katibs_db_manager(name):
    policy = read(f"fence/{name}")
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["metadata"]["namespace"] == "kubeflow"
    assert selects(policy["spec"]["podSelector"], {"katib.kubeflow.org/component": "db-manager"})
    assert not selects(policy["spec"]["podSelector"], {"katib.kubeflow.org/component": "mysql"})


def test_the_fence_lets_katibs_services_alone_to_the_plaintext_port():
    policy = read("fence/network-policy.yaml")
    assert {pod for pod in KATIBS_PODS if admits(policy, pod, 6789)} == {
        "controller",
        "ui",
        "suggestion and early stopping",
    }
    assert all(admits(policy, pod, port) for pod in KATIBS_PODS for port in (6790, 9090))
    assert not any(admits(policy, pod, 22) for pod in KATIBS_PODS)


def test_the_gap_for_metrics_collectors_lets_trials_in_and_is_not_part_of_the_fence():
    gap = read("fence/metrics-collectors.yaml")
    assert {pod for pod in KATIBS_PODS if admits(gap, pod, 6789)} == {"trial"}
    assert read("fence/kustomization.yaml")["resources"] == ["network-policy.yaml"]


def test_the_ports_of_server_service_fence_and_example_are_one():
    (container,) = read("authenticated/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    service = read("authenticated/service.yaml")
    (address,) = [argument for argument in container["args"] if argument.startswith("--trial-listen-address=")]
    port = int(address.rpartition(":")[2])
    assert [entry["containerPort"] for entry in container["ports"]] == [port]
    assert [(entry["port"], entry["protocol"]) for entry in service["spec"]["ports"]] == [(6789, "TCP"), (port, "TCP")]
    assert (service["kind"], service["metadata"]["name"]) == ("Service", "katib-db-manager")
    assert f'value: "katib-db-manager.kubeflow.svc:{port}"' in EXAMPLE.read_text(encoding="utf-8")


def test_the_document_has_every_flag_the_example_and_a_token_file_that_is_one(tmp_path):
    document = SECURITY.read_text(encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_arguments(parser, listen_address=KATIB_LISTEN_ADDRESS)
    flags = set(re.findall(r"--trial-[a-z-]+", parser.format_help()))
    assert len(flags) == 12
    assert set(re.findall(r"--trial-[a-z-]+", document)) == flags
    for path in re.findall(r"(?:deploy|examples)/[-a-z/]+(?:\.yaml)?", document):
        assert (DEPLOY.parents[1] / path).exists(), path

    (audience,) = re.findall(r"audience: .*", document)
    assert audience in EXAMPLE.read_text(encoding="utf-8")

    (example,) = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    path = tmp_path / "tokens.json"
    path.write_text(example.replace("<64 hex digits>", hashlib.sha256(b"t" * 43).hexdigest()), encoding="utf-8")
    path.chmod(0o600)
    grant = TokenFile(path).authenticate("t" * 43)
    assert (grant.caller, grant.trial_patterns, grant.namespace) == ("ci", ("digits-*",), "team-a")


def test_the_server_knows_the_flags_and_keeps_those_of_the_base():
    patch = read("authenticated/deployment.yaml")
    pod = patch["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (base,) = read("manager/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert container["name"] == base["name"]
    assert set(base["args"]) < set(container["args"])
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, listen_address=KATIB_LISTEN_ADDRESS)
    arguments = parser.parse_args(container["args"])
    assert arguments.listen == "0.0.0.0:6789"
    # Each file that is named lies in a volume that is mounted whole, so that it is replaced when its secret is.
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert all("subPath" not in mount for mount in container["volumeMounts"])
    assert pod["automountServiceAccountToken"] is True
    mounts.append("/var/run/secrets/kubernetes.io/serviceaccount")
    files = [value for argument in container["args"] if (value := argument.partition("=")[2]).startswith("/")]
    assert len(files) == 4
    assert all(str(Path(file).parent) in mounts for file in files)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["secret"]["defaultMode"] == 0o440  # read by the group, which fsGroup is
    assert pod["securityContext"]["fsGroup"] == base["securityContext"]["runAsUser"]
