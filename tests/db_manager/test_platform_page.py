"""What docs/platform.md has a platform engineer do, to the letter as far as one machine goes.

The overlays are merged into Katib's Deployment by kubectl. The command, flags and variables that come out of it run on
a database whose table Katib's own statements have made and filled. kubectl_stand_in.py is what calls for a cluster.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from beside import held_port
from conftest import RawClient
from servers import STORES
from test_schema import INDEXES, KATIBS_TABLE
from trials import hashed, new_token, refusal

from katib_callbacks.db_manager import DBManager
from katib_callbacks.wire.client import DBManagerStub

yaml = pytest.importorskip("yaml", reason="`databases` has it")
pytest.importorskip("prometheus_client", reason="`databases` has it")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "platform.md").read_text(encoding="utf-8")
KUBECTL = os.environ.get("TEST_KUBECTL") or shutil.which("kubectl")
BASH = shutil.which("bash")
PROMETHEUS = shutil.which("prometheus")
TIMEOUT_S = 240
MANAGERS_TOKEN = "the-managers-own"  # noqa: S105  no secret

DATABASES = [store for store in STORES if store != "sqlite"]

NOT_RUN = {
    "build": "needs a container engine: test_deployment.py runs what the image runs, cluster.yml the image",
    "sbom": "needs a registry with an image of a release",
}
BLOCKS = {
    mark: textwrap.dedent(text)
    for _, mark, _, text in re.findall(
        r"^( *)<!-- (.+?) -->\n\1```(sh|sql)\n(.*?)^\1```", PAGE, re.MULTILINE | re.DOTALL
    )
}
RUN = [
    *("image", "before", "index: mysql", "index: postgresql", "manager", "certificate", "authenticated"),
    *("token", "report", "refused", "fence", "monitoring"),
    *("back: fence", "back: monitoring", "back: manager", "back: return", "back: mysql", "back: postgresql"),
]

KATIBS_DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "katib-db-manager", "namespace": "kubeflow"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"katib.kubeflow.org/component": "db-manager"}},
        "template": {
            "metadata": {
                "labels": {"katib.kubeflow.org/component": "db-manager"},
                "annotations": {"sidecar.istio.io/inject": "false"},
            },
            "spec": {
                "containers": [
                    {
                        "name": "katib-db-manager",
                        "image": "docker.io/kubeflowkatib/katib-db-manager",
                        "command": ["./katib-db-manager"],
                        "ports": [{"name": "api", "containerPort": 6789}],
                        "livenessProbe": {"grpc": {"port": 6789}, "initialDelaySeconds": 10, "periodSeconds": 60},
                    }
                ]
            },
        },
    },
}
"""As Katib v0.19.0 has it (manifests/v1beta1/components/db-manager), but for the variables of its database."""

needs_kubectl = pytest.mark.skipif(
    not (KUBECTL and BASH and shutil.which("openssl")), reason="needs kubectl, bash and openssl"
)


class Katib:
    """The statements of Katib's own DB manager, on a new database (v0.19.0, pkg/db/v1beta1/{mysql,postgres})."""

    def __init__(self, database):
        self.database = database
        self.url = database.create_database()

    def execute(self, statement):
        return self.database.execute(statement, database=self.url.rpartition("/")[2])

    def start(self):
        self.execute(KATIBS_TABLE[self.database.dialect])

    def report(self, trial_name, *rows):
        values = ", ".join(f"('{trial_name}', '{self._time(time)}', '{name}', '{value}')" for time, name, value in rows)
        self.execute(f"INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES {values}")  # noqa: S608

    def get(self, trial_name):
        rows = self.execute(
            f"SELECT time, metric_name, value FROM observation_logs WHERE trial_name = '{trial_name}' ORDER BY time"  # noqa: S608
        )
        return [(_rfc3339(time), name, value) for time, name, value in rows]

    def delete(self, trial_name):
        self.execute(f"DELETE FROM observation_logs WHERE trial_name = '{trial_name}'")  # noqa: S608

    def _time(self, time):
        return time if self.database.dialect == "postgresql" else time.replace("T", " ").rstrip("Z")

    def variables(self):
        """Return what its Deployment says of the database."""
        user, password, host, port, name = map(
            urllib.parse.unquote, re.fullmatch(r".*://(.*):(.*)@(.*):(.*)/(.*)", self.url).groups()
        )
        prefix = f"KATIB_{self.database.dialect.upper()}_DB"
        values = {
            "DB_NAME": "mysql" if self.database.dialect == "mysql" else "postgres",
            "DB_USER": user,
            f"{prefix}_HOST": host,
            f"{prefix}_PORT": port,
            f"{prefix}_DATABASE": name,
        }
        secret = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "katib-mysql-secrets", "key": "P"}}}
        return [{"name": key, "value": value} for key, value in values.items()] + [secret], password


def _rfc3339(time):
    """Return a time as Go's RFC3339Nano writes it."""
    text = time.isoformat()
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"


class Platform:
    """A copy of what the page works in, a shell that runs its blocks, and a kubelet for one container."""

    def __init__(self, folder, katib, issuer):
        self.folder, self.katib, self.issuer = folder, katib, issuer
        self.checkout = folder / "checkout"
        shutil.copytree(ROOT / "deploy", self.checkout / "deploy")
        self.stand_in = folder / "stand-in"
        (self.stand_in / "applied").mkdir(parents=True)
        settings = {"kubectl": KUBECTL, "url": issuer.url, "ca": str(issuer.ca), "token": MANAGERS_TOKEN}
        (self.stand_in / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self._programs = folder / "bin"
        self._programs.mkdir()
        stand_in = Path(__file__).with_name("kubectl_stand_in.py")
        for name, program in {
            "kubectl": [sys.executable, str(stand_in)],
            "katib-callbacks": [sys.executable, "-m", "katib_callbacks.cli"],
            "python3": [sys.executable],
        }.items():
            path = self._programs / name
            path.write_text(f'#!/bin/sh\nexec {" ".join(program)} "$@"\n', encoding="utf-8")
            path.chmod(0o755)
        self._exported = ""
        self._managers = []
        self.ports = {}

    def block(self, mark):
        """Run a block of the page; return what it printed."""
        text = BLOCKS[mark]
        for port, other in self.ports.items():
            text = text.replace(port, other)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KATIB")}
        environment |= {
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "STAND_IN": str(self.stand_in),
        }
        done = subprocess.run(
            [BASH, "-ec", f"{self._exported}\n{text}\nwait"],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done
        self._exported += "".join(line for line in text.splitlines(keepends=True) if line.startswith("export "))
        return done.stdout + done.stderr

    def applied(self, overlay):
        name = f"{overlay}.yaml".replace("/", "-")
        return list(yaml.safe_load_all((self.stand_in / "applied" / name).read_text(encoding="utf-8")))

    def calls(self):
        return (self.stand_in / "calls").read_text(encoding="utf-8").splitlines()

    def merged(self, overlay):
        """Return Katib's Deployment after an overlay, merged by kubectl as an API server merges."""
        (patch,) = [one for one in self.applied(overlay) if one["kind"] == "Deployment"]
        deployment = json.loads(json.dumps(KATIBS_DEPLOYMENT))
        deployment["spec"]["template"]["spec"]["containers"][0]["env"], _ = self.katib.variables()
        folder = self.folder / "merge"
        folder.mkdir(exist_ok=True)
        kustomization = {"resources": ["katib.json"], "patches": [{"path": "patch.json"}]}
        for name, content in {"katib": deployment, "patch": patch, "kustomization": kustomization}.items():
            path = folder / (f"{name}.yaml" if name == "kustomization" else f"{name}.json")
            path.write_text(json.dumps(content), encoding="utf-8")
        done = subprocess.run([KUBECTL, "kustomize", folder], check=True, stdout=subprocess.PIPE, text=True)
        return yaml.safe_load(done.stdout)

    def start(self, deployment):
        """Do what the kubelet does: files, variables, command; wait until it is ready. Ports are free ones."""
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        self._write_volumes(pod, container)
        _, password = self.katib.variables()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        for variable in container["env"]:
            environment[variable["name"]] = variable.get("value", password)
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        arguments = [*container["args"], "--listen-address=127.0.0.1:0"]
        for name, port in ports.items():
            assert name == "api" or any(argument.endswith(f"0.0.0.0:{port}") for argument in arguments)
        arguments = [re.sub(r"=0\.0\.0\.0:\d+$", "=127.0.0.1:0", argument) for argument in arguments]
        arguments = [argument.replace("=/var/run/", f"={self.folder}/run/") for argument in arguments]
        app = self.folder / "app"
        app.mkdir(exist_ok=True)
        if not (app / "katib-db-manager").exists():
            (app / "katib-db-manager").symlink_to(Path(sys.executable).parent / "katib-db-manager")
        log = self.stand_in / "log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [*container["command"], *arguments], cwd=app, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        self._managers.append(process)
        told = ["listening on ", "metrics on http://", *(["listening for trials on "] if "trial-api" in ports else [])]
        until(lambda: process.poll() is not None or all(text in log.read_text() for text in told), log.read_text)
        assert process.poll() is None, log.read_text()
        addresses = [re.search(rf"{re.escape(text)}([\d.:]+)", log.read_text())[1] for text in told]
        self.address, self.metrics, *trials = addresses
        self.ports = {"6790": trials[0].rpartition(":")[2]} if trials else {}
        return process

    def stop(self):
        """End the managers as a rolling update does."""
        while self._managers:
            process = self._managers.pop()
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(TIMEOUT_S) == 0, (self.stand_in / "log").read_text()
            finally:
                process.kill()
                process.wait()

    def _write_volumes(self, pod, container):
        root = self.folder / "run" / "secrets"
        account = root / "kubernetes.io" / "serviceaccount"
        account.mkdir(parents=True, exist_ok=True)
        (account / "ca.crt").write_bytes(self.issuer.ca.read_bytes())
        (account / "token").write_text(MANAGERS_TOKEN, encoding="utf-8")
        paths = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
        for volume in pod.get("volumes", ()):
            folder = self.folder / "run" / Path(paths[volume["name"]]).relative_to("/var/run")
            folder.mkdir(parents=True, exist_ok=True)
            made = self.stand_in / "applied" / f"secret-kubeflow-{volume['secret']['secretName']}.json"
            for name, content in json.loads(made.read_text(encoding="utf-8"))["data"].items():
                (folder / name).write_bytes(base64.b64decode(content))


def until(is_true, what):
    end_s = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < end_s, what()
        time.sleep(0.05)


def give_tokens(handler):
    """Answer as the API server does that gives a service account a token; else as an issuer."""
    from issuers import answer  # noqa: PLC0415  needs what a session may lack

    path, _, query = handler.path.partition("?")
    if not path.startswith("/token/"):
        return answer(handler)
    _, _, namespace, account = path.split("/")
    (audience,) = urllib.parse.parse_qs(query)["audience"]
    token = handler.server.issuer.token(audience, namespace=namespace, service_account=account)
    return handler.reply(200, token.encode())


@pytest.fixture
def platform(tmp_path, database_server, issuer):
    issuer.behave = give_tokens
    issuer.required_token = MANAGERS_TOKEN
    platform = Platform(tmp_path, Katib(database_server(DATABASES[0])), issuer)
    yield platform
    for process in platform._managers:
        process.kill()
        process.wait()


def test_every_block_of_the_page_is_run_or_named_with_its_reason():
    assert len(re.findall(r"^ *```\w+$", PAGE, re.MULTILINE)) == len(BLOCKS)
    assert set(BLOCKS) == {*RUN, *NOT_RUN}


@needs_kubectl
@pytest.mark.timeout(1_800)
def test_the_tour(platform, open_channel, tmp_path):
    katib = platform.katib
    katib.start()
    before = [("2026-01-31T12:00:00.5Z", "loss", "0.5"), ("2026-01-31T12:00:01Z", "loss", "0.25")]
    katib.report("old", *before)

    # The manager, on the table as Katib left it.
    platform.block("image")
    platform.block("before")
    platform.block("manager")
    deployment = platform.merged("deploy/db-manager")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ours = KATIBS_DEPLOYMENT["spec"]
    assert deployment["spec"]["selector"] == ours["selector"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == ours["template"]["metadata"]["labels"]
    assert container["image"] == "registry.example.com/katib-callbacks-db-manager:0.1.0"
    platform.start(deployment)
    stub = DBManagerStub(open_channel(platform.address))
    assert stub.is_serving(timeout_s=TIMEOUT_S)  # as the readiness probe asks
    assert container["readinessProbe"]["grpc"] == {"port": 6789}
    assert [row.value for row in stub.get("old", timeout_s=TIMEOUT_S)] == ["0.5", "0.25"]
    assert len(katib.execute(INDEXES[katib.database.dialect])) == 1

    # Both managers side by side: rows of either are read by the other; a repeated batch is stored once by ours.
    during = ("2026-01-31T12:00:02Z", "loss", "0.125")
    katib.report("old", during)
    push(platform.address, "old", during)
    push(platform.address, "old", ("2026-01-31T12:00:03Z", "loss", "0.0625"))
    assert katib.get("old") == [*before, during, ("2026-01-31T12:00:03Z", "loss", "0.0625")]
    katib.report("old", during)  # Katib's does not ask
    assert [value for _, _, value in katib.get("old")].count("0.125") == 2
    platform.stop()

    try_tokens(platform)
    assert PROMETHEUS or not os.environ.get("CI"), "no prometheus: apt-get install prometheus"
    if PROMETHEUS:
        judge_alerts(platform, tmp_path)

    # And back: Katib's manager on all of it.
    for mark in ("back: fence", "back: monitoring", "back: manager"):
        platform.block(mark)
    calls = platform.calls()
    assert "-n kubeflow rollout undo deployment/katib-db-manager --to-revision=4" in calls
    applied = [call.rpartition(" ")[2] for call in calls if call.startswith("apply")]
    taken_back = [call.rpartition(" ")[2] for call in calls if call.startswith("delete")]
    assert set(taken_back) == {overlay for overlay in applied if overlay.rpartition("/")[2] in {"fence", "monitoring"}}
    platform.stop()


def try_tokens(platform):
    """Open the port for trials, and try it as the page does."""
    katib = platform.katib
    platform.block("certificate")
    platform.block("authenticated")
    platform.start(platform.merged("deploy/db-manager/authenticated"))
    row = ("2026-01-31T12:00:00.5Z", "loss", "0.5")
    push(platform.address, "plain", row)  # a template that was not changed
    assert katib.get("plain") == [row]
    platform.block("token")
    assert "0.9" in platform.block("report")
    refused = platform.block("refused")
    assert "PERMISSION_DENIED" in refused
    assert "UNAUTHENTICATED" in refused
    audit = [json.loads(line) for line in refused.splitlines() if line.startswith("{") and '"reason"' in line]
    assert {(line["trial"], line["code"]) for line in audit if line["trial"]} == {("tour-2", "PERMISSION_DENIED")}
    assert {line["code"] for line in audit} == {"PERMISSION_DENIED", "UNAUTHENTICATED"}
    assert [row[1:] for row in katib.get("tour-1")] == [("accuracy", "0.9")]
    assert katib.get("tour-2") == []
    platform.block("fence")
    platform.block("monitoring")


def push(address, trial_name, *rows):
    """Report by Katib's own port, as an unchanged template does."""

    with grpc.insecure_channel(address) as channel:
        RawClient(channel).report(trial_name, *rows)


def judge_alerts(platform, folder):
    """Let Prometheus scrape the manager by the page's rules, take its database away, and bring it back."""
    (rule,) = [one for one in platform.applied("deploy/db-manager/monitoring") if one["kind"] == "PrometheusRule"]
    groups = rule["spec"]["groups"]
    for group in groups:
        group["interval"] = "1s"
        for alert in group["rules"]:
            alert.pop("for", None)  # which promtool tests (test_kustomize.py)
    (folder / "rules.json").write_text(json.dumps({"groups": groups}), encoding="utf-8")
    scrape = {"job_name": "managers", "scrape_interval": "1s", "static_configs": [{"targets": [platform.metrics]}]}
    configuration = {"rule_files": ["rules.json"], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    with ExitStack() as stack:
        port = stack.enter_context(held_port())
        log = stack.enter_context((folder / "prometheus.log").open("wb"))
        process = subprocess.Popen(
            [
                PROMETHEUS,
                "--config.file=prometheus.yml",
                f"--web.listen-address=127.0.0.1:{port}",
                "--storage.tsdb.path=data",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait, TIMEOUT_S)
        stack.callback(process.kill)

        def ask(path):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
                    return json.loads(response.read())["data"]
            except OSError:
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                return None

        def serving():
            found = ask("/api/v1/query?query=katib_db_manager_serving")
            return [one["value"][1] for one in found["result"]] if found else None

        def firing():
            return {one["labels"]["alertname"] for one in (ask("/api/v1/alerts") or {"alerts": []})["alerts"]}

        until(lambda: serving() == ["1"], firing)
        until(lambda: not firing(), firing)
        platform.katib.database.kill()
        try:
            until(lambda: "KatibDBManagerNotServing" in firing(), serving)
        finally:
            platform.katib.database.start()
        until(lambda: serving() == ["1"], firing)
        until(lambda: "KatibDBManagerNotServing" not in firing(), firing)


@pytest.mark.parametrize("store", DATABASES)
def test_an_index_made_by_hand_is_the_one_that_the_manager_would_make(store, database_server, caplog):
    katib = Katib(database_server(store))
    katib.start()
    for statement in statements(f"index: {katib.database.dialect}"):
        katib.execute(statement)
    made = katib.execute(INDEXES[katib.database.dialect])
    assert len(made) == 1

    DBManager(katib.url).start().stop()

    assert katib.execute(INDEXES[katib.database.dialect]) == made
    assert "whole table" not in caplog.text


@pytest.mark.parametrize("store", DATABASES)
def test_katibs_manager_goes_on_with_what_ours_leaves_and_ours_with_what_katibs_left(store, database_server, trials):
    katib = Katib(database_server(store))
    tokens = {namespace: new_token() for namespace in ("team-a", "team-b")}
    trials.write_tokens(*(hashed(namespace, token, "*", namespace=namespace) for namespace, token in tokens.items()))
    rows = [("2026-01-31T12:00:00.000001Z", "loss", "0.5"), ("2026-01-31T12:00:01Z", "Genauigkeit/größer", "1e-05")]
    with DBManager(katib.url, trial_listener=trials.listener()) as server:  # which makes all tables
        for trial_name in ("one", "two"):
            trials.client(server, tokens["team-a"]).report(trial_name, *rows)

    katib.start()  # and finds its table
    assert katib.get("one") == rows
    later = ("2026-01-31T12:00:02.25Z", "loss", "0.25")
    katib.report("one", later)
    assert katib.get("one") == [*rows, later]
    katib.delete("two")
    assert katib.get("two") == []

    owners = "SELECT trial_name, namespace FROM katib_callbacks_trial_namespaces"
    assert len(katib.execute(owners)) == 2  # nobody has told the manager of ours
    for statement in statements("back: return"):
        katib.execute(statement)
    ((name, namespace),) = katib.execute(owners)
    assert (name if isinstance(name, str) else name.decode(), namespace) == ("one", "team-a")
    with DBManager(katib.url, trial_listener=trials.listener()) as server:
        assert trials.client(server, tokens["team-a"]).get("one") == [*rows, later]
        assert refusal(trials.client(server, tokens["team-b"]).report, "one")[0] == "PERMISSION_DENIED"
        trials.client(server, tokens["team-b"]).report("two", rows[0])  # another experiment has the name now

    for statement in statements(f"back: {katib.database.dialect}"):
        katib.execute(statement)
    assert katib.execute(INDEXES[katib.database.dialect]) == []
    assert katib.get("one") == [*rows, later]


def statements(mark):
    return [statement for statement in BLOCKS[mark].split(";") if statement.strip()]
