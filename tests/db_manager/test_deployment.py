"""The image in the place of Katib's own, as far as that can be seen without a container engine.

Its command runs as its container file says, as Katib's deployment says and with that deployment's variables alone: as
user 1000, on a root that cannot be written to.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from servers import STORES

from katib_callbacks.cli import health_probe
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "db-manager"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")

UNSHARE = shutil.which("unshare")

KATIBS_COMMAND = "./katib-db-manager"
"""kubeflow/katib v0.19.0, manifests/v1beta1/components/db-manager/db-manager.yaml; the image's folder is /app there."""

# The program that the console script of that name is, in a process that gives up root as the kubelet makes it do.
# What is imported before the change of user lies where root alone can read, on machines where root's home has Python.
PROGRAM = """
import encodings.idna, os, sys
import katib_callbacks.cli.db_manager, katib_callbacks.db_manager.katib_environment
import sqlalchemy.dialects.mysql.pymysql, sqlalchemy.dialects.postgresql.psycopg, pymysql, psycopg
sys.stderr.write("writable: %s\\n" % os.access("/tmp", os.W_OK))
os.setgroups([]); os.setgid(1000); os.setuid(1000)
sys.exit(katib_callbacks.cli.db_manager.main())
"""


def test_the_container_file_makes_katibs_command_for_katibs_user():
    assert f'ENTRYPOINT ["{KATIBS_COMMAND}"]' in DOCKERFILE
    assert "\nWORKDIR /app\n" in DOCKERFILE
    assert "\nUSER 1000\n" in DOCKERFILE
    assert "\nRUN ln -s venv/bin/katib-db-manager katib-db-manager\n" in DOCKERFILE
    assert "\nRUN ln -s /app/venv/bin/katib-health-probe /bin/grpc_health_probe\n" in DOCKERFILE
    assert '".[mysql,postgres,prometheus,auth]"' in DOCKERFILE
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()


def test_the_console_script_has_katibs_name():
    script = Path(sys.executable).parent / "katib-db-manager"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=240)
    assert "--listen-address" in done.stdout
    assert "--connect-timeout" in done.stdout


def test_the_probe_of_older_manifests_tells_by_its_exit_status(server, db, capfd):
    host, _, port = server.address.rpartition(":")
    script = Path(sys.executable).parent / "katib-health-probe"
    patience = ["-connect-timeout=60s", "-rpc-timeout", "60s"]

    def probe(*arguments):
        return subprocess.run([script, *arguments], check=False, timeout=240).returncode

    assert probe(f"-addr={host}:{port}", *patience) == 0
    assert health_probe.main([f"-addr=:{port}", "-service", "api.v1.beta1.DBManager", *patience]) == 0
    assert health_probe.main([f"--addr={host}:{port}", "--service=another", *patience]) == 3
    db.rename(db.with_name("moved.db"))
    assert health_probe.main([f"-addr={host}:{port}", *patience]) == 4
    server.stop()
    assert health_probe.main([f"-addr={host}:{port}", "-connect-timeout=100ms"]) == 2
    out, err = capfd.readouterr()
    assert out.splitlines() == ["serving", "serving", "not serving"]
    assert "NOT_FOUND" in err
    assert "no connection to 127.0.0.1" in err


def test_the_manifest_is_about_katibs_deployment_alone_and_has_flags_that_there_are():
    yaml = pytest.importorskip("yaml", reason="`databases` has it")
    manifest = yaml.safe_load((DEPLOY / "manager" / "deployment.yaml").read_text(encoding="utf-8"))
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Deployment", "katib-db-manager")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "katib-db-manager"
    assert container["securityContext"]["runAsUser"] == 1000
    script = Path(sys.executable).parent / "katib-db-manager"
    done = subprocess.run(
        [script, *container["args"], "--help"], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr


def test_the_kubelet_does_not_restart_a_manager_whose_database_is_away(server, db, open_channel):
    yaml = pytest.importorskip("yaml", reason="`databases` has it")
    manifest = yaml.safe_load((DEPLOY / "manager" / "deployment.yaml").read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    channel = open_channel(server.address)
    check = channel.unary_unary(methods.HEALTH_CHECK, response_deserializer=messages.HealthCheckResponse.FromString)

    def ask(probe):
        request = messages.HealthCheckRequest(service=container[probe]["grpc"].get("service", ""))
        return check(request.SerializeToString(), timeout=60).status

    assert {ask("livenessProbe"), ask("readinessProbe"), ask("startupProbe")} == {messages.SERVING}
    db.rename(db.with_name("moved.db"))
    assert (ask("livenessProbe"), ask("readinessProbe")) == (messages.SERVING, messages.NOT_SERVING)


@pytest.mark.skipif(os.getuid() != 0 or UNSHARE is None, reason="makes a read-only root, as root")
@pytest.mark.parametrize("store", [store for store in STORES if store != "sqlite"])
def test_katibs_variables_alone_make_it_serve_on_a_root_that_cannot_be_written_to(
    store, database_server, open_channel, make_logs, tmp_path
):
    database = database_server(store)
    url = database.create_database()
    user, password, host, port, name = map(unquote, re.fullmatch(r".*://(.*):(.*)@(.*):(.*)/(.*)", url).groups())
    dialect = database.dialect
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
        "DB_NAME": "mysql" if dialect == "mysql" else "postgres",
        "DB_USER": user,
        "DB_PASSWORD": password,
        f"KATIB_{dialect.upper()}_DB_HOST": host,
        f"KATIB_{dialect.upper()}_DB_PORT": port,
        f"KATIB_{dialect.upper()}_DB_DATABASE": name,
    }
    command = (
        f"mount -o remount,ro,bind / && exec {sys.executable} -c {shlex.quote(PROGRAM)} --listen-address=127.0.0.1:0"
    )
    process = subprocess.Popen(
        [UNSHARE, "--mount", "sh", "-c", command],
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "listening on" in line, process.communicate()
        assert password not in line
        channel = open_channel(re.search(r"listening on (\S+),", line)[1])
        stub = DBManagerStub(channel)
        assert stub.is_serving(timeout_s=60)
        check = channel.unary_unary(methods.HEALTH_CHECK, response_deserializer=messages.HealthCheckResponse.FromString)
        for service in ("", methods.HEALTH_SERVICE):  # what the kubelet asks, and what Katib's manager knows
            request = messages.HealthCheckRequest(service=service).SerializeToString()
            assert check(request, timeout=60).status == messages.SERVING
        stub.report("t", make_logs(1, 2), timeout_s=60)
        assert len(stub.get("t", timeout_s=60)) == 2
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", status, re.MULTILINE)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "stopped by SIGTERM" in out
    assert "writable: False" in err
    assert list(tmp_path.iterdir()) == []
