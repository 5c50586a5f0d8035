"""The overlays as `kubectl kustomize` renders them: nothing of a Katib that is there but what they mean to change.

And the alert rules and the dashboard: each of their metrics is one that the server has.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.prometheus import REFUSAL_REASONS
from katib_callbacks.db_manager.service.health import LIVENESS
from katib_callbacks.db_manager.trials import servicer
from katib_callbacks.wire.client import DBManagerStub

yaml = pytest.importorskip("yaml", reason="`databases` has it")

DEPLOY = Path(__file__).parents[2] / "deploy" / "db-manager"
KUBECTL = os.environ.get("TEST_KUBECTL") or shutil.which("kubectl")
PROMTOOL = shutil.which("promtool")

RENDERED = {
    ".": {("Deployment", "katib-db-manager"), ("PodDisruptionBudget", "katib-db-manager")},
    "authenticated": {
        ("Deployment", "katib-db-manager"),
        ("PodDisruptionBudget", "katib-db-manager"),
        ("Service", "katib-db-manager"),
    },
    "fence": {("NetworkPolicy", "katib-db-manager")},
    "monitoring": {
        ("ConfigMap", "katib-db-manager-dashboard"),
        ("PrometheusRule", "katib-db-manager"),
        ("Service", "katib-db-manager-metrics"),
        ("ServiceMonitor", "katib-db-manager"),
    },
}
"""Kinds and names. Katib has the Deployment and the Service; kubeflow/manifests has the NetworkPolicy."""

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: apt-get install prometheus")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl; nox's session databases brings one")


def render(overlay):
    done = subprocess.run(
        [KUBECTL, "kustomize", DEPLOY / overlay], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def the(kind, objects):
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def manager(objects):
    pod = the("Deployment", objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


@needs_kubectl
def test_every_overlay_is_one_of_these():
    overlays = {str(path.parent.relative_to(DEPLOY)) for path in DEPLOY.rglob("kustomization.yaml")}
    assert overlays == {*RENDERED, "manager"}


@needs_kubectl
@pytest.mark.parametrize("overlay", RENDERED)
def test_an_overlay_renders_what_it_means_to_change(overlay):
    objects = render(overlay)

    assert {(each["kind"], each["metadata"]["name"]) for each in objects} == RENDERED[overlay]
    assert {each["metadata"]["namespace"] for each in objects} == {"kubeflow"}


@needs_kubectl
@pytest.mark.parametrize("overlay", [".", "authenticated"])
def test_the_deployment_keeps_what_is_katibs(overlay):
    objects = render(overlay)
    deployment = the("Deployment", objects)
    pod, container = manager(objects)

    # Server-side apply merges: what is not named stays as the cluster has it, whichever database that is.
    assert "selector" not in deployment["spec"]
    assert "labels" not in deployment["spec"]["template"]["metadata"]
    assert not {"command", "env", "envFrom"} & set(container)
    assert [volume["secret"]["secretName"] for volume in pod.get("volumes", [])] in ([], ["katib-db-manager-tls"])
    assert container["image"] == "registry.example.com/katib-callbacks-db-manager:0.1.0"
    assert container["resources"].keys() == {"requests", "limits"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["livenessProbe"]["grpc"]["service"] == LIVENESS
    assert {port["containerPort"] for port in container["ports"]} == {9090} | ({6790} if overlay != "." else set())
    budget = the("PodDisruptionBudget", objects)["spec"]
    assert budget["minAvailable"] < deployment["spec"]["replicas"]
    assert budget["selector"]["matchLabels"] == {"katib.kubeflow.org/component": "db-manager"}


@needs_kubectl
def test_the_service_has_both_ports_and_katibs_selector():
    service = the("Service", render("authenticated"))["spec"]

    assert [port["port"] for port in service["ports"]] == [6789, 6790]
    assert service["selector"] == {"katib.kubeflow.org/component": "db-manager"}


@needs_kubectl
def test_prometheus_finds_the_port_that_the_manager_listens_on():
    objects = render("monitoring")
    service, monitor = the("Service", objects), the("ServiceMonitor", objects)
    _, container = manager(render("."))

    assert "--metrics-address=0.0.0.0:9090" in container["args"]
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("metrics", 9090)]
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["metrics"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    dashboard = the("ConfigMap", objects)
    assert json.loads(dashboard["data"]["katib-db-manager.json"])["title"] == "Katib DB manager"


# -- rules and dashboard -------------------------------------------------------------------------------------------


def expressions():
    rules = yaml.safe_load((DEPLOY / "monitoring" / "prometheus-rule.yaml").read_text(encoding="utf-8"))
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_rules_and_dashboard_ask_for_metrics_and_labels_that_the_server_has(tmp_path, open_channel, make_logs):
    pytest.importorskip("prometheus_client", reason="`databases` has it")
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  as above

    with DBManager(f"sqlite:///{tmp_path}/katib.db", "127.0.0.1:0", metrics_address="127.0.0.1:0") as server:
        DBManagerStub(open_channel(server.address)).report("trial", make_logs(1), timeout_s=60)
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=60) as response:
            text = response.read().decode()
    families = list(text_string_to_metric_families(text))
    names = {sample.name for family in families for sample in family.samples}
    labels = {label for family in families for sample in family.samples for label in sample.labels}

    for expression in expressions():
        asked = set(re.findall(r"katib_db_manager_\w+", expression))
        assert asked
        assert asked <= names, expression
        by = re.findall(r"by \(([^)]*)\)", expression)
        assert {label.strip() for group in by for label in group.split(",")} <= labels, expression


@needs_promtool
def test_prometheus_understands_rules_and_dashboard(tmp_path):
    rules = yaml.safe_load((DEPLOY / "monitoring" / "prometheus-rule.yaml").read_text(encoding="utf-8"))["spec"]
    asked = [expression.replace("$__rate_interval", "5m") for expression in expressions()]
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    path = tmp_path / "rules.json"  # which is YAML, too
    path.write_text(json.dumps({"groups": [*rules["groups"], {"name": "all", "rules": recorded}]}), encoding="utf-8")

    done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr


# -- what each alert fires on, by Prometheus' own evaluation --------------------------------------------------------


def calls(code, values, method="ReportObservationLog"):
    return (f'katib_db_manager_calls_total{{method="{method}",code="{code}",pod="a"}}', values)


def refusals(reason, values):
    return (f'katib_db_manager_refusals_total{{reason="{reason}",pod="a"}}', values)


def buckets(slow):
    """Return a histogram of a call a second, all of which take 1 ms, or, where they are ``slow``, 7 s."""
    name, method = "katib_db_manager_call_seconds_bucket", "GetObservationLog"
    return [
        (
            f'{name}{{method="{method}",le="{limit}",pod="a"}}',
            "0x80" if slow and limit in {"0.001", "5.0"} else "0+30x80",
        )
        for limit in ("0.001", "5.0", "10.0", "+Inf")
    ]


SERVING = ("katib_db_manager_serving{pod='a'}", "1x80")
HEALTHY = [
    SERVING,
    ("katib_db_manager_serving{pod='b'}", "0x80"),  # one of two is enough
    calls("OK", "0+300x80"),
    calls("INVALID_ARGUMENT", "0+300x80"),  # a client's mistake
    calls("UNAVAILABLE", "0+6x80"),  # one in a hundred
    calls("RESOURCE_EXHAUSTED", "0+1x80"),
    refusals("credential", "0x20 5x60"),
    refusals("namespace", "0x80"),
    refusals("issuer", "0x80"),
    *buckets(slow=False),
]
"""Values every 30 s, 40 minutes long."""

ALERTS = {
    # Series, when it does not fire yet, when it fires, its labels, and what stands in its summary for a template.
    "KatibDBManagerAbsent": ([], "4m30s", "5m", {}, {}),
    "KatibDBManagerNotServing": (
        [("katib_db_manager_serving{pod='a'}", "1x4 0x80"), ("katib_db_manager_serving{pod='b'}", "0x80")],
        "4m",
        "4m30s",
        {},
        {},
    ),
    "KatibDBManagerCallsFail": (
        [SERVING, calls("OK", "0+90x80"), calls("UNAVAILABLE", "0+10x80")],
        "5m",
        "5m30s",
        {"method": "ReportObservationLog"},
        {"{{ $value | humanizePercentage }}": "10%", "{{ $labels.method }}": "ReportObservationLog"},
    ),
    "KatibDBManagerOverloaded": (
        [SERVING, calls("OK", "0+300x80"), calls("RESOURCE_EXHAUSTED", "0+6x80")],
        "6m",
        "9m",
        {},
        {},
    ),
    "KatibDBManagerSlow": (
        [SERVING, *buckets(slow=True)],
        "10m",
        "10m30s",
        {"method": "GetObservationLog"},
        {"{{ $labels.method }}": "GetObservationLog"},
    ),
    # All of them within one scrape, the first ones since the start.
    "KatibDBManagerRefusesTrials": (
        [SERVING, refusals("credential", "0x20 12x60")],
        "9m",
        "12m",
        {"reason": "credential"},
        {"{{ $value | humanize }}": "12", "{{ $labels.reason }}": "credential"},
    ),
    "KatibDBManagerForeignNamespace": ([SERVING, refusals("namespace", "0x20 1x60")], "9m", "12m", {}, {}),
    "KatibDBManagerIssuerAway": ([SERVING, refusals("issuer", "0x20 1+1x60")], "10m30s", "11m30s", {}, {}),
}


def rules():
    written = yaml.safe_load((DEPLOY / "monitoring" / "prometheus-rule.yaml").read_text(encoding="utf-8"))["spec"]
    return written, {rule["alert"]: rule for group in written["groups"] for rule in group["rules"]}


def test_each_alert_has_its_place_in_the_runbook():
    page = (DEPLOY.parents[1] / "docs" / "platform.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (Katib\w+)$", page, re.MULTILINE)
    _, alerts = rules()

    assert headings == list(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/platform.md#{name.lower()}"
    assert set(re.findall(r"^\| `([a-z ]+)` \|", page, re.MULTILINE)) == set(REFUSAL_REASONS)


def test_every_reason_for_which_a_call_is_refused_is_counted_from_the_start():
    source = (Path(servicer.__file__)).read_text(encoding="utf-8")

    kinds = re.findall(r'_DeniedError\(\s*(?:grpc\.StatusCode\.\w+|code), "([a-z ]+)"', source)
    assert set(kinds) == set(REFUSAL_REASONS)


@needs_promtool
def test_an_alert_fires_on_what_it_is_for_and_on_nothing_else(tmp_path):
    written, alerts = rules()
    assert set(ALERTS) == set(alerts)
    (tmp_path / "rules.json").write_text(json.dumps({"groups": written["groups"]}), encoding="utf-8")
    tests = [case("nothing", HEALTHY, {f"{minute}m": {} for minute in (5, 15, 25, 35)}, alerts)]
    for name, (series, not_yet, fires_at, labels, _) in ALERTS.items():
        tests.append(case(name, series, {not_yet: {}, fires_at: {name: labels}}, alerts))
    path = tmp_path / "tests.json"
    path.write_text(json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "30s", "tests": tests}))

    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr


def case(name, series, fired, alerts):
    """Return a test of promtool's: which alerts fire at each time, and that no other does."""
    expectations = []
    for time, firing in fired.items():
        for alert, rule in alerts.items():
            expected = []
            if alert in firing:
                annotations = dict(rule["annotations"])
                for template, text in ALERTS[alert][4].items():
                    assert template in annotations["summary"]
                    annotations["summary"] = annotations["summary"].replace(template, text)
                expected.append({"exp_labels": {**rule["labels"], **firing[alert]}, "exp_annotations": annotations})
            expectations.append({"eval_time": time, "alertname": alert, "exp_alerts": expected})
    return {
        "name": name,
        "interval": "30s",
        "input_series": [{"series": text, "values": values} for text, values in series],
        "alert_rule_test": expectations,
    }
