"""What a process of a trial says of itself: which rank it is, what came of its report, and what our code did there.

Import it before everything else: it sees threads and sockets from then on.
"""

import atexit
import faulthandler
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["KATIB_TEST_FOLDER"])
OURS = ("katib_callbacks", "grpc")

_events: list[str] = []
_said: list[str] = []


def _see_socket(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a socket that our code, or what only our code uses, makes or connects."""
    del arguments
    if event not in {"socket.__new__", "socket.connect"}:
        return
    frame = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in OURS:
            _events.append(f"{event} from {module}")
            return
        frame = frame.f_back


def _see_thread(frame: Any, event: str, argument: Any) -> None:
    """Note a thread that runs our code. Called in each new thread, until it is known whose it is."""
    del event, argument
    module = frame.f_globals.get("__name__", "")
    if module.partition(".")[0] in OURS:
        _events.append(f"a thread that runs {module}")
    if module.partition(".")[0] not in {"threading", "concurrent", "contextvars"}:
        sys.setprofile(None)


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _said.append(f"{record.levelname}: {record.getMessage()}")


logging.basicConfig(level=logging.INFO, format="%(process)d %(name)s: %(message)s")
logging.getLogger("katib_callbacks").addHandler(_Listener())
faulthandler.dump_traceback_later(float(os.environ["KATIB_TEST_LIMIT_S"]), exit=True)  # if the test itself was killed
sys.addaudithook(_see_socket)
threading.setprofile(_see_thread)


def testify(rank: int, receipt: Any, **more: Any) -> None:
    """Write down what this process has come to, for the test to read."""
    testimony = {
        "rank": rank,
        "pid": os.getpid(),
        "receipt": None if receipt is None else ("skipped" if receipt.skipped else f"delivered {receipt.delivered}"),
        "has_grpc": "grpc" in sys.modules,
        "events": _events,
        "grpc_threads": sorted(name for name in _native_threads() if name.startswith(("grpc_", "event_engine"))),
        "said": _said,
        **more,
    }
    _write(f"testimony-{os.getpid()}.json", json.dumps(testimony))


def _native_threads() -> set[str]:
    """Return the names of all threads, those included that Python does not know."""
    return {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}


def light_beacon(rank: int) -> None:
    """Say that this rank is in the middle of its training."""
    _write(f"beacon-{rank}", str(os.getpid()))


def note(name: str) -> None:
    """Say that this process has come to a point."""
    _write(name, "")


def leave_process_group_at_exit() -> None:
    """Do for gloo what Lightning and accelerate do for NCCL alone.

    A process that ends with its gloo group aborts now and then: https://github.com/pytorch/pytorch/issues/190489
    """
    import torch.distributed as dist  # noqa: PLC0415  only where torch is used

    atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)


def end_before_gloo_aborts() -> None:
    """End at once, for a sharded module holds its gloo groups until Python's end: see above.

    What training, delivery and testimony raise has been raised before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _write(name: str, text: str) -> None:
    unfinished = FOLDER / f"{name}.{os.getpid()}"
    unfinished.write_text(text)
    unfinished.rename(FOLDER / name)  # a test reads it whole or not at all
