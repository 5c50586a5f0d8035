"""MariaDB, MySQL and PostgreSQL servers of one's own: on a free port, in a temporary folder, to be killed at will.

They are Debian's programs (``mariadb-server``, ``postgresql``), started here and never as a service of the system. Of
MySQL itself Debian's stable releases have none: ``mysqld`` is taken from the PATH.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

sys.path.append(str(Path(__file__).parents[1]))
from beside import low_port

STORES = os.environ.get("TEST_STORES", "sqlite").split(",")
"""What tests of the DB manager run on. nox's ``databases`` names servers, too: one that is missing then is an error."""

START_TIMEOUT_S = 120.0
PASSWORD = "p@ss:w/rd %"  # noqa: S105  one that shows whether it is quoted


class MissingServerError(Exception):
    """The programs of a database server are not installed."""


def find(program: str, package: str) -> str:
    """Return a server's program, which Debian keeps off the PATH."""
    folders = [
        *os.get_exec_path(),
        "/usr/sbin",
        *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise MissingServerError(f"no {program}: apt-get install {package}")
    return found


class DatabaseServer:
    """A server's process, through any number of deaths, always on one port."""

    name = ""
    dialect = ""
    """Of SQL: ``mysql`` or ``postgresql``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"katib-{self.name}-"))
        self.port = low_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._dropped = 0

    def __enter__(self):
        try:
            self.install()
            self.start()
            self.prepare()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start it, and return once it answers."""
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            if self.process is None or self.process.poll() is not None:  # a killed one's memory may not be free yet
                with (self.folder / "server.log").open("ab") as log:
                    self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            if self._answers(raising=time.monotonic() > end):
                return
            time.sleep(0.1)

    def _answers(self, *, raising: bool) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT_S).close()
            self.execute("SELECT 1")
        except Exception:
            if raising:
                raise
            return False
        return True

    def kill(self) -> None:
        """SIGKILL it, as a machine that loses power, but for what the kernel has written."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it, and the processes that it has for its sessions, without closing anything.

        A signal takes its time to reach a thread that runs on another processor, which may answer one more question.
        """
        pids = self._signal_all(signal.SIGSTOP)
        while not all(map(_is_stopped, pids)):
            time.sleep(0.01)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        pids = [self.process.pid, *map(int, children)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def remove(self) -> None:
        """Stop it and delete what it wrote."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, options: str = "") -> str:
        """Make a new database; return its URL."""
        self._databases += 1
        name = f"katib_{self._databases}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def drop_databases(self) -> None:
        """Drop what was made so far: a server that is killed syncs every file that it has before it answers again."""
        while self._dropped < self._databases:
            self._dropped += 1
            self.drop(f"katib_{self._dropped}")

    def drop(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        self.execute(f"DROP DATABASE {name}")

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        raise NotImplementedError

    def install(self) -> None:
        """Make the folder's content."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the user, once it runs."""

    def command(self) -> list[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def execute(self, statement: str, database: str | None = None) -> list[tuple]:
        """Run a statement as the administrator."""
        raise NotImplementedError

    def kill_connections(self) -> int:
        """End every session but one's own, as an administrator does; return how many there were."""
        raise NotImplementedError

    def connections(self) -> int:
        """Return how many sessions of others there are."""
        raise NotImplementedError


class MariaDBServer(DatabaseServer):
    """MariaDB with its own defaults, so with a character set that has few characters."""

    name = "mariadb"
    dialect = "mysql"

    def install(self) -> None:
        subprocess.run(
            [
                find("mariadb-install-db", "mariadb-server"),
                *("--no-defaults", f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal"),
                *("--skip-test-db", *self._user()),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def command(self) -> list[str]:
        return [
            find("mariadbd", "mariadb-server"),
            *("--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/socket"),
            *(f"--pid-file={self.folder}/pid", f"--port={self.port}", "--bind-address=127.0.0.1"),
            *("--skip-name-resolve", "--max-connections=40", *self._user()),
        ]

    def prepare(self) -> None:
        self.execute(f"CREATE USER katib@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        self.execute("GRANT ALL ON *.* TO katib@'127.0.0.1'")

    def url(self, database: str) -> str:
        return f"mysql://katib:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str | None = None) -> list[tuple]:
        import pymysql  # noqa: PLC0415  only in the session that has it

        connection = pymysql.connect(
            unix_socket=f"{self.folder}/socket", user="root", database=database, charset="utf8mb4", autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def kill_connections(self) -> int:
        ids = [row[0] for row in self.execute(_SESSIONS)]
        for number in ids:
            with contextlib.suppress(Exception):  # it may have ended by itself
                self.execute(f"KILL {number}")
        return len(ids)

    def connections(self) -> int:
        return len(self.execute(_SESSIONS))

    @staticmethod
    def _user() -> Iterable[str]:
        return ["--user=root"] if os.getuid() == 0 else []


class MySQLServer(MariaDBServer):
    """MySQL with its own defaults."""

    name = "mysql"

    def install(self) -> None:
        subprocess.run([*self._mysqld(), "--initialize-insecure"], check=True, stderr=subprocess.DEVNULL)

    def command(self) -> list[str]:
        return [
            *self._mysqld(),
            *(f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", f"--port={self.port}"),
            *(
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--max-connections=40",
                "--mysqlx=OFF",
                "--secure-file-priv=NULL",
            ),
        ]

    def _mysqld(self) -> list[str]:
        program = shutil.which("mysqld")
        if program is None or Path(program).resolve().name != "mysqld":  # MariaDB has a link of that name
            raise MissingServerError("no mysqld of MySQL's own on the PATH: see https://dev.mysql.com/downloads/")
        return [program, "--no-defaults", f"--datadir={self.folder}/data", *self._user()]


_SESSIONS = "SELECT id FROM information_schema.processlist WHERE user = 'katib'"


class PostgreSQLServer(DatabaseServer):
    """PostgreSQL, which refuses to run as root: there it runs as the user ``postgres`` of the package."""

    name = "postgresql"
    dialect = "postgresql"

    def install(self) -> None:
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            self._as_user(
                find("initdb", "postgresql"),
                *("-D", f"{self.folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"),
            ),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def command(self) -> list[str]:
        return self._as_user(
            find("postgres", "postgresql"),
            *("-D", f"{self.folder}/data", "-p", str(self.port), "-k", str(self.folder)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=40", "-c", "recovery_init_sync_method=syncfs"),
        )

    def prepare(self) -> None:
        self.execute(f"CREATE USER katib SUPERUSER PASSWORD '{PASSWORD}'")
        hba = self.folder / "data" / "pg_hba.conf"
        hba.write_text("local all postgres trust\nhost all katib 127.0.0.1/32 scram-sha-256\n")
        self.execute("SELECT pg_reload_conf()")

    def url(self, database: str) -> str:
        return f"postgresql://katib:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str | None = None) -> list[tuple]:
        import psycopg  # noqa: PLC0415  only in the session that has it

        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database or "postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def kill_connections(self) -> int:
        return len(self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'katib'"))

    def connections(self) -> int:
        return len(self.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'katib'"))

    @staticmethod
    def _as_user(*command: str) -> list[str]:
        if os.getuid() != 0:
            return list(command)
        return [find("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


SERVERS = {server.name: server for server in (MariaDBServer, MySQLServer, PostgreSQLServer)}


def _is_stopped(pid: int) -> bool:
    """Say whether every thread of a process is stopped, or the process is gone."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return not Path(f"/proc/{pid}").exists()
    return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)
