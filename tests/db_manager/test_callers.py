"""A DB manager that answers only the user who has started it."""

import os
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import grpc
import pytest

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service.callers import OwnCallers
from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire.client import DBManagerStub

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system tells no connection's user")

ROW = MetricLog("loss", 0.5, datetime(2026, 1, 1, tzinfo=timezone.utc))

CALL = """
import os, sys, grpc
from katib_callbacks.wire.client import DBManagerStub
DBManagerStub(grpc.insecure_channel(sys.argv[1])).get("trial", timeout_s=120)  # root's, which loads all that there is
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
stub = DBManagerStub(grpc.insecure_channel(sys.argv[1], [("grpc.use_local_subchannel_pool", 1)]))
for call in (stub.get, stub.delete):
    try:
        call("trial", timeout_s=120)
        print("answered")
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


def test_the_own_users_calls_are_answered_and_anothers_are_not(tmp_path):
    with (
        DBManager(tmp_path / "katib.db", is_own_users_only=True) as db_manager,
        grpc.insecure_channel(db_manager.address) as channel,
    ):
        stub = DBManagerStub(channel)
        stub.report("trial", [ROW], timeout_s=120)
        others = _as_another_user(db_manager.address)
        assert [log.value for log in stub.get("trial", timeout_s=120)] == ["0.5"]

    assert len(others) == 2
    assert all(line.startswith("PERMISSION_DENIED this DB manager answers only the user") for line in others), others


def _as_another_user(address):
    if os.getuid() != 0:  # nobody else's process can be started: another user's manager is asked in its place
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as client:
            callers = OwnCallers(os.getuid() + 1)
            callers.port = int(port)
            is_one = callers.has("ipv4:{}:{}".format(*client.getsockname()))
        return ["answered" if is_one else "PERMISSION_DENIED this DB manager answers only the user"] * 2
    command = [sys.executable, "-c", CALL, address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout.splitlines()


def test_a_connection_that_was_closed_is_nobodys():
    callers = OwnCallers(os.getuid())
    with socket.create_server(("127.0.0.1", 0)) as server:
        callers.port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()) as client:
            accepted, peer = server.accept()
            assert callers.has("ipv4:{}:{}".format(*peer))
            assert not callers.has(f"ipv4:127.0.0.2:{peer[1]}")
            assert not callers.has(f"ipv6:%5B::1%5D:{peer[1]}")
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
        with accepted:
            while callers.has("ipv4:{}:{}".format(*peer)):  # it was looked at a moment ago
                time.sleep(0.1)
