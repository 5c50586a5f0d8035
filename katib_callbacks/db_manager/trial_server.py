"""The trial listener's server: beside the plaintext one, on the same store, with threads of its own."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType

from katib_callbacks.db_manager.audit import Audit
from katib_callbacks.db_manager.health import Health
from katib_callbacks.db_manager.listening import bind, make_server
from katib_callbacks.db_manager.observer import Observer
from katib_callbacks.db_manager.servicer import Servicer
from katib_callbacks.db_manager.trial_listener import Gate
from katib_callbacks.db_manager.trial_servicer import TrialService

MORE_THREADS = 128
"""Than calls: for refusals, health checks, and clients that send their request slowly."""

MAX_CONNECTION_AGE_S = 25
MAX_CONNECTION_GRACE_S = 30
"""After the age, give or take a tenth, a connection takes no new call; after the grace those in flight are cut off. So
what an authority that was removed had vouched for works for 28 s, and nothing of it is left after a minute. Clients
connect anew without noticing."""

HANDSHAKE_TIMEOUT_S = 20


class TrialServer:
    """Serves trials while it is entered; a context manager. The store is closed by its owner, after it.

    Args:
        gate: Whom to let in.
        servicer: Answers calls.
        health: Answers health checks.
        observer: Counts.
        max_reads: How many trials may read at once.

    Raises:
        ConfigurationError: The address cannot be had.
    """

    def __init__(self, gate: Gate, servicer: Servicer, health: Health, observer: Observer, *, max_reads: int) -> None:
        self.gate = gate
        with ExitStack() as undo:
            workers = ThreadPoolExecutor(
                max_workers=gate.listener.max_calls + MORE_THREADS,
                thread_name_prefix="katib-callbacks-db-manager-trials",
            )
            undo.callback(workers.shutdown)
            audit = Audit()
            undo.callback(audit.close)
            self.server = make_server(
                workers,
                ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_S * 1_000),
                ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_GRACE_S * 1_000),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1_000),
            )
            self.service = TrialService(gate, servicer, health, audit, observer, max_reads=max_reads)
            self.server.add_generic_rpc_handlers((self.service,))
            self.address = bind(self.server, gate.listener.listen_address, gate.files.credentials())
            """Where it listens."""
            self._close = undo.pop_all().close

    def __enter__(self) -> "TrialServer":  # noqa: PYI034  typing.Self came with Python 3.11
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.stop(None).wait()
        self._close()
