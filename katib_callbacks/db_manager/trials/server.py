"""The trial listener's server: beside the plaintext one, on the same store, with threads of its own."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from katib_callbacks.db_manager.listening import bind, make_server
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.health import Health
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.trials.audit import Audit
from katib_callbacks.db_manager.trials.authenticator import Authenticator
from katib_callbacks.db_manager.trials.servicer import TrialService

MORE_THREADS = 128
"""Than calls: for refusals, health checks, and clients that send their request slowly."""

MAX_CONNECTION_AGE_S = 25
MAX_CONNECTION_GRACE_S = 30
"""After the age, give or take a tenth, a connection takes no new call; after the grace those in flight are cut off. So
a minute after an authority was removed, nothing is left of its clients' connections. Others connect anew unnoticed."""

_GRPC_LOGGER = logging.getLogger("grpc._cython.cygrpc")


class TrialServer:
    """Serves trials while it is entered; a context manager. The store is closed by its owner, after it."""

    def __init__(
        self,
        authenticator: Authenticator,
        servicer: Servicer,
        health: Health,
        metrics: ServerMetrics,
        arrivals: Arrivals,
        *,
        max_reads: int,
    ) -> None:
        self.authenticator = authenticator
        with ExitStack() as undo:
            workers = ThreadPoolExecutor(
                max_workers=authenticator.listener.max_calls + MORE_THREADS,
                thread_name_prefix="katib-callbacks-db-manager-trials",
            )
            undo.callback(workers.shutdown)
            _GRPC_LOGGER.addFilter(_quotes_no_header)
            undo.callback(_GRPC_LOGGER.removeFilter, _quotes_no_header)
            audit = Audit()
            undo.callback(audit.close)
            self.server = make_server(
                workers,
                ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_S * 1_000),
                ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_GRACE_S * 1_000),
            )
            self.service = TrialService(authenticator, servicer, health, audit, metrics, arrivals, max_reads=max_reads)
            self.server.add_generic_rpc_handlers((self.service,))
            self.address = bind(self.server, authenticator.listener.listen_address, authenticator.files.credentials())
            """Where it listens."""
            self._close = undo.pop_all().close

    def __enter__(self) -> "TrialServer":  # noqa: PYI034  typing.Self came with Python 3.11
        self.server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.server.stop(None).wait()
        self._close()


def _quotes_no_header(record: logging.LogRecord) -> bool:
    """Keep gRPC from logging a header that is no UTF-8: anybody can send one, and it may be a token."""
    return not str(record.msg).startswith("Invalid encoding")
