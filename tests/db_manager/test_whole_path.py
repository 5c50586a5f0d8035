"""The whole path: a Lightning example as a trial, TLS, a token, the trial listener in a process, a database server."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from issuers import Issuer
from sqlalchemy import create_engine, make_url, text
from trials import hashed, new_token, refusal

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_digits.py"
EPOCHS = 2
DRIVERS = {"mysql": "mysql+pymysql", "postgresql": "postgresql+psycopg"}


@pytest.fixture
def issuer():
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def db_manager(trials, token, issuer, database_url):
    """The program, and its address for trials."""
    trials.write_tokens(hashed("team-b", token, "digits-b", namespace="team-b"))
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "katib_callbacks.cli",
                "db-manager",
                "--listen",
                "127.0.0.1:0",
                "--db",
                database_url,
            ),
            *("--trial-listen-address", "localhost:0", "--trial-token-file", str(trials.path("tokens.json"))),
            *("--trial-tls-cert", str(trials.path("server.pem")), "--trial-tls-key", str(trials.path("server.key"))),
            *("--trial-oidc-issuer", issuer.url, "--trial-oidc-ca", str(issuer.ca)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = process.stdout.readline() + process.stdout.readline()
    yield process, re.search(r"listening for trials on (\S+)", lines)[1]
    if process.poll() is None:
        process.kill()
    process.communicate()


def train(trials, address, trial_name, token):
    """Run the example as Katib would, and return what it printed."""
    environment = os.environ | {
        "KATIB_TRIAL_NAME": trial_name,
        "KATIB_DB_MANAGER_ADDRESS": address,
        "KATIB_CALLBACKS_TLS_CA": str(trials.path("ca.pem")),
        "KATIB_CALLBACKS_TOKEN_PATH": str(trials.write(f"token-{trial_name}", token.encode())),
        "KATIB_CALLBACKS_ON_ERROR": "raise",
    }
    command = [sys.executable, EXAMPLE, "--epochs", str(EPOCHS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_lightning_trial_reports_with_its_token_and_no_other(trials, token, issuer, db_manager, database_url):
    process, address = db_manager
    tokens = {"digits-a": issuer.token("katib-trial:team-a/digits-a"), "digits-b": token}
    for trial_name, its_token in tokens.items():
        code, output = train(trials, address, trial_name, its_token)
        assert code == 0, output
        assert "delivered=2" in output

    code, output = train(trials, address, "digits-b", tokens["digits-a"])
    assert code != 0
    assert "PERMISSION_DENIED: the credential does not allow this call" in output
    assert not any(secret in output for secret in tokens.values())
    stranger = issuer.token("katib-trial:team-c/digits-b", namespace="team-c")
    assert refusal(trials.client(address, stranger).report, "digits-b")[0] == "PERMISSION_DENIED"
    assert refusal(trials.client(address, new_token()).get, "digits-b")[0] == "UNAUTHENTICATED"
    assert refusal(trials.client(address).get, "digits-b")[0] == "UNAUTHENTICATED"

    url = make_url(database_url)
    engine = create_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT trial_name, metric_name, value FROM observation_logs ORDER BY id")).all()
        owners = connection.execute(text("SELECT namespace FROM katib_callbacks_trial_namespaces")).scalars().all()
    engine.dispose()
    assert [row[:2] for row in rows] == [(trial, name) for trial in tokens for name in ("accuracy", "loss")]
    assert all(0 < float(row.value) <= 1 for row in rows if row.metric_name == "accuracy")
    assert sorted(owners) == ["team-a", "team-b"]

    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=240)
    assert process.returncode == 0
    assert log.count("refused /api.v1.beta1.DBManager/") == 4
    assert "caller 'system:serviceaccount:team-a:default', trial 'digits-b': the credential is for other trials" in log
    assert "trial 'digits-b': the trial belongs to another namespace than team-c" in log
    assert not any(secret in log for secret in (*tokens.values(), stranger))
