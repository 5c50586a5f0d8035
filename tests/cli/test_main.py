"""The command itself: help, versions, exit statuses, and what it does not import."""

import os
import subprocess
import sys

import pytest

from katib_callbacks import __version__
from katib_callbacks.cli import main


def run_python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240)


def test_help_lists_every_subcommand_and_loads_none_of_their_dependencies():
    done = run_python(
        "import sys, katib_callbacks.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print('loaded', sorted({'grpc', 'google.protobuf', 'sqlalchemy', 'rich'} & set(sys.modules)))\n"
        "print('missing', [name for name in cli.SUBCOMMANDS if f'katib_callbacks.cli.{name}' not in sys.modules])\n"
    )
    assert done.stdout.splitlines()[-2:] == ["loaded []", "missing []"], done
    for command in ("db-manager", "experiment", "logs"):
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize("command", ["db-manager", "logs"])
def test_every_subcommand_documents_its_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "default" in (out := capsys.readouterr().out)
    assert "127.0.0.1:6789" in out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"katib-callbacks {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["logs"], ["logs", "t", "--timeout", "soon"]])
def test_wrong_arguments_are_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("katib-callbacks")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--db", "nosql://user:hunter2@host/katib"], 2, "nosql://user:***@host/katib: the DB manager does not know"),
        (["--db", "sqlite://"], 2, "in-memory"),
        (["--listen", "localhost"], 2, "'localhost' is not an address to listen on"),
        (["--listen-address", "localhost"], 2, "'localhost' is not an address to listen on"),
        (["--db", "sqlite:////no/such/folder/katib.db"], 1, "the folder '/no/such/folder' does not exist"),
    ],
)
def test_a_db_manager_that_cannot_start_says_why_in_one_line(arguments, status, message, capsys):
    assert main(["db-manager", "--listen", "127.0.0.1:0", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("katib-callbacks: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line(katib_db_manager, tmp_path):
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", katib_db_manager.address]
    # In a process of its own: gRPC's core writes to the file descriptor, past sys.stderr.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"katib-callbacks: error: cannot listen on {katib_db_manager.address}: ")
    assert done.stderr.count("\n") == 1


def test_without_sqlalchemy_the_db_manager_names_its_extra():
    done = run_python(
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from katib_callbacks.cli import main; sys.exit(main(['db-manager', '--listen', '127.0.0.1:0']))"
    )
    assert done.returncode == 2
    assert 'pip install "katib-callbacks[db-manager]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_installed_script_is_this_command():
    script = os.path.join(os.path.dirname(sys.executable), "katib-callbacks")  # noqa: PTH118, PTH120  not resolved
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, f"katib-callbacks {__version__}\n")
