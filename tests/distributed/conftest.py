"""Trials of several real processes on this machine, before a real DB manager that sees who comes.

Only Linux: processes are found by what /proc says of them. The test's own process loads no framework.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from beside import low_port
from front_door import GONE, FrontDoor
from processes import Process, Processes

PROGRAMS = Path(__file__).with_name("programs")
EXAMPLES = Path(__file__).parents[2] / "examples"

LIMIT_S = 240.0
"""For one test. Most take 10 s on two idle cores; what hangs, hangs for longer than this."""

BLOCK_S = float(os.environ.get("KATIB_TEST_BLOCK_S", "5"))
"""How long rank zero is kept waiting in delivery where a test does that."""


class Trial:
    """One trial of several processes.

    Attributes:
        folder: The working directory of all of them.
        door: The way to the DB manager.
    """

    def __init__(self, folder: Path, processes: Processes, door: FrontDoor, db_manager) -> None:
        self.folder = folder
        self.door = door
        self._processes = processes
        self._db_manager = db_manager
        self.until = processes.until

    python = sys.executable

    def start(self, *command: object, name: str = "process", **variables: str) -> Process:
        """Start ``python command...``; a script is looked for among the programs and the examples."""
        words = [_script(word) for word in command]
        return self._processes.start(name, sys.executable, *words, **variables)

    def torchrun(self, *command: object, name: str = "torchrun", **variables: str) -> Process:
        """Start ``torchrun command...``, by default with two processes."""
        options = () if str(command[0]).startswith("--") else ("--standalone", "--nproc-per-node", "2")
        return self.start("-m", "torch.distributed.run", *options, *command, name=name, **variables)

    def execute(self, *command: object, name: str, **variables: str) -> Process:
        """Start something else than Python."""
        return self._processes.start(name, *map(_script, command), **variables)

    def wait(self) -> None:
        """Return when all processes have ended well."""
        if any(self.statuses()):
            self._processes.fail("not all processes ended with status 0")

    def statuses(self) -> list[int]:
        """Return the exit statuses of the processes that were started, when all have ended."""
        return self._processes.wait()

    def rows(self) -> list[tuple[str, float]]:
        """Read back what the DB manager holds."""
        return [(row.name, float(row.value)) for row in self._db_manager.metrics()]

    def visitors(self) -> set[int]:
        """Return which processes came to the DB manager."""
        return set(self.door.visitors) - {GONE}

    def testimonies(self) -> dict[int, dict]:
        """Return what each rank has said of itself; see programs/witness.py."""
        paths = self.folder.glob("testimony-*.json")
        found = [json.loads(path.read_text()) for path in paths]
        by_rank = {testimony["rank"]: testimony for testimony in found}
        assert len(by_rank) == len(found), f"two processes of one rank: {found}"
        return by_rank

    def beacon(self, rank: int) -> int | None:
        """Return the process that is this rank, once it is in the middle of its training."""
        path = self.folder / f"beacon-{rank}"
        return int(path.read_text()) if path.exists() else None

    def assert_rank_zero_alone_reported(self, ranks: int = 2, **options: bool) -> None:
        """Fail unless rank zero has a receipt of rows, no other has, and :meth:`assert_rank_zero_alone_came`."""
        receipts = [testimony["receipt"] for _, testimony in sorted(self.testimonies().items())]
        assert str(receipts[0]).startswith("delivered")
        assert set(receipts[1:]) <= {None, "skipped"}
        self.assert_rank_zero_alone_came(ranks, **options)

    def assert_rank_zero_alone_came(self, ranks: int = 2, *, has_own_grpc: bool = False) -> None:
        """Fail unless the process of rank zero, and no other, came to the DB manager or prepared for it.

        Args:
            ranks: How many processes there were.
            has_own_grpc: Whether the framework brings threads of a gRPC of its own, as JAX's coordination does.
        """
        told = self.testimonies()
        assert sorted(told) == list(range(ranks))
        assert self.visitors() == {told[0]["pid"]}
        assert told[0]["has_grpc"]  # so that its absence elsewhere says something
        assert told[0]["grpc_threads"]
        for rank in range(1, ranks):
            assert told[rank]["events"] == [], f"rank {rank} started a thread or opened a socket of ours"
            assert not told[rank]["has_grpc"]
            assert told[rank]["grpc_threads"] == [] or has_own_grpc


def _script(word: object) -> object:
    if str(word).endswith(".py"):
        return next(path for folder in (PROGRAMS, EXAMPLES) if (path := folder / str(word)).exists())
    return word


@pytest.fixture
def trial(tmp_path, katib_db_manager):
    if not sys.platform.startswith("linux"):
        pytest.skip("processes are found by what Linux' /proc says of them")
    folder = tmp_path / "trial"
    folder.mkdir()
    with FrontDoor(katib_db_manager.address) as door:
        environ = {
            "KATIB_TRIAL_NAME": katib_db_manager.trial_name,
            "KATIB_DB_MANAGER_ADDRESS": door.address,
            "KATIB_TEST_FOLDER": str(folder),
            "KATIB_TEST_LIMIT_S": str(2 * LIMIT_S + BLOCK_S),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROGRAMS), os.environ.get("PYTHONPATH")])),
        }
        processes = Processes(folder, environ, limit_s=LIMIT_S + BLOCK_S)
        try:
            yield Trial(folder, processes, door, katib_db_manager)
        finally:
            processes.close()


@pytest.fixture
def block_s():
    return BLOCK_S


@pytest.fixture
def free_port():
    """A port for a coordinator that has to be known beforehand."""
    return str(low_port())


@pytest.fixture
def mpirun():
    """The command that starts two processes by OpenMPI, on loopback."""
    if shutil.which("mpirun") is None:
        missing = "there is no mpirun: install OpenMPI (Debian: apt-get install openmpi-bin)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    loopback = ["--mca", "oob_tcp_if_include", "lo", "--mca", "btl_tcp_if_include", "lo", "--mca", "btl", "self,tcp"]
    return ["mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none", *loopback]
