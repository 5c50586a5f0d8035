"""Which database and which flags: by Katib's environment, by Go's way of writing, by options of our own."""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys

import pytest

from katib_callbacks import ConfigurationError
from katib_callbacks.cli.db_manager import add_arguments, duration, main
from katib_callbacks.cli.log_format import JsonFormatter
from katib_callbacks.db_manager.katib_environment import database_url, is_initialized
from katib_callbacks.settings import Runtime


def runtime(**environ):
    return Runtime(environ=lambda: environ)


def test_without_a_db_name_no_database_is_named():
    assert database_url(runtime(DB_USER="x", KATIB_MYSQL_DB_HOST="h")) is None
    assert database_url(runtime(DB_NAME="")) is None


def test_katibs_defaults_hold_for_mysql():
    assert str(database_url(runtime(DB_NAME="mysql"))) == "mysql://root@katib-mysql:3306/katib"


def test_katibs_defaults_hold_for_postgres():
    url = str(database_url(runtime(DB_NAME="postgres")))
    assert url == "postgresql://katib@katib-postgres:5432/katib?sslmode=disable"


def test_katibs_variables_are_read_and_a_password_keeps_every_character():
    password = " p@ss:w/rd?%20#é "  # noqa: S105  that is the point
    url = database_url(
        runtime(
            DB_NAME="mysql",
            DB_USER="me",
            DB_PASSWORD=password,
            KATIB_MYSQL_DB_HOST="db.example.com",
            KATIB_MYSQL_DB_PORT="3307",
            KATIB_MYSQL_DB_DATABASE="katib-2",
            KATIB_MYSQL_PORT="tcp://10.0.0.1:3306",  # a service link, which nobody reads
        )
    )
    assert (url.username, url.password, url.host, url.port, url.database) == (
        *("me", password),
        *("db.example.com", 3307, "katib-2"),
    )
    url = database_url(
        runtime(
            DB_NAME="postgres",
            DB_PASSWORD=password,
            KATIB_POSTGRESQL_DB_HOST="::1",
            KATIB_POSTGRESQL_DB_PORT="5433",
            KATIB_POSTGRESQL_DB_DATABASE="other",
            KATIB_POSTGRESQL_SSL_MODE="verify-full",
        )
    )
    assert (url.password, url.host, url.port, url.database) == (password, "::1", 5433, "other")
    assert dict(url.query) == {"sslmode": "verify-full"}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DB_NAME": "oracle"}, "DB_NAME must be one of 'mysql', 'postgres', not 'oracle'"),
        ({"DB_NAME": "mysql", "KATIB_MYSQL_DB_PORT": "tcp://10.0.0.1:3306"}, "KATIB_MYSQL_DB_PORT must be a port"),
        ({"DB_NAME": "postgres", "KATIB_POSTGRESQL_DB_PORT": "0"}, "KATIB_POSTGRESQL_DB_PORT must be a port, not '0'"),
        ({"DB_NAME": "postgres", "KATIB_POSTGRESQL_DB_PORT": "65536"}, "must be a port"),
    ],
)
def test_a_variable_that_cannot_be_right_is_named(environ, message):
    with pytest.raises(ConfigurationError) as caught:
        database_url(runtime(**environ))
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "skips"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_the_initialization_may_be_skipped(text, skips):
    assert is_initialized(runtime(SKIP_DB_INITIALIZATION=text)) is skips


def test_a_word_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(ConfigurationError, match="SKIP_DB_INITIALIZATION must be 1 or 0"):
        is_initialized(runtime(SKIP_DB_INITIALIZATION="perhaps"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("1m30s", 90), ("1.5h", 5_400), ("500ms", 0.5), ("90", 90), ("0", 0), ("2m", 120), ("1000us", 0.001)],
)
def test_durations_are_written_as_go_writes_them(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "", "1 m", "-5s", "-1", "inf", "nan", "5x"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        duration(text)


@pytest.mark.parametrize("hyphens", ["-", "--"])
def test_katibs_flags_may_have_one_hyphen_and_have_katibs_defaults(hyphens):
    parser = argparse.ArgumentParser()
    add_arguments(parser, listen_address="0.0.0.0:6789")
    assert (parser.parse_args([]).listen, parser.parse_args([]).connect_timeout) == ("0.0.0.0:6789", 60)
    arguments = parser.parse_args([f"{hyphens}listen-address=127.0.0.1:1", f"{hyphens}connect-timeout", "2m"])
    assert (arguments.listen, arguments.connect_timeout) == ("127.0.0.1:1", 120)


def test_katibs_command_without_a_db_name_says_so_and_ends(monkeypatch, capsys):
    monkeypatch.delenv("DB_NAME", raising=False)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("katib-db-manager: error: DB_NAME is not set")


def test_katibs_command_listens_everywhere_by_default(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "0.0.0.0:6789" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--db", "mysql+mysqldb://h/k"], "database driver 'mysql+mysqldb' is not known; write mysql://..."),
        (
            ["--db", "postgresql+asyncpg://h/k"],
            "database driver 'postgresql+asyncpg' is not known; write postgresql://",
        ),
        (["--db", "mysql://h"], "names no database; write it after the host"),
        (["--db", "postgresql://h/k", "--max-connections", "1"], "connections, not 1"),
    ],
)
def test_a_database_that_cannot_be_served_is_said(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "many"])
def test_a_limit_that_is_no_positive_number_is_refused(count, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--max-calls", count])
    assert "--max-calls" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--max-calls", "8", "--help"])


def test_log_lines_may_be_json(tmp_path):
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--db", f"sqlite:///{tmp_path}/k.db", "--log-format", "json", "--log-level", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "listening" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    lines = [json.loads(line) for line in err.splitlines()]
    first, last = [line for line in lines if line["logger"] != "stderr"]
    assert (first["level"], first["message"], first["logger"]) == ("INFO", "serving", "katib_callbacks.cli.db_manager")
    assert first["database"] == f"sqlite:///{tmp_path}/k.db"
    assert first["time"].endswith("Z")
    assert (last["message"], last["signal"]) == ("stopping", "SIGTERM")


def test_with_json_every_line_is_json_grpcs_own_too(tmp_path):
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--db", f"sqlite:///{tmp_path}/k.db", "--log-format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "debug", "GRPC_TRACE": "api"},
    )
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0
    told = [json.loads(line)["message"] for line in [first, *out.splitlines()]]
    assert [text.split()[2] for text in told] == ["listening", "stopped"]
    logged = [json.loads(line) for line in err.splitlines()]
    assert any(line["logger"] == "stderr" and "grpc" in line["message"] for line in logged)


def test_with_json_an_error_at_the_start_is_json(tmp_path):
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, "--log-format", "json", "--db", "nosql://h/k"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    line = json.loads(done.stderr)
    assert line["level"] == "ERROR"
    assert "does not know 'nosql' databases" in line["message"]


def test_a_json_line_stays_one_line_and_has_the_traceback():
    try:
        int("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a %s\nb", ("ü",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a ü\nb"
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]
