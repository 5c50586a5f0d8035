"""The spool: rows on disk from before the first attempt until they are known to be stored.

One file per delivery, written under a temporary name, synced, renamed, and the directory synced: it is there whole or
not at all, whenever the process is killed. A process that delivers it holds a lock on it, which ends with the process:
a replay takes only what nobody delivers any more. A file names the trial and no address, and holds no secret.
"""

import logging
import os
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import MAXYEAR, datetime, timezone
from io import FileIO
from pathlib import Path
from types import ModuleType

from katib_callbacks.errors import DeliveryError, ReporterClosedError, SpoolError
from katib_callbacks.files import sync_folder
from katib_callbacks.metrics import MetricLog
from katib_callbacks.process_state import in_forked_child
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.katib.spool_format import (
    DamagedError,
    Header,
    SpooledRows,
    chunks,
    has_footer,
    parse,
    parse_header,
)

logger = logging.getLogger(__name__)

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and a replay must wait until the trials have ended
    fcntl = None

SUFFIX = ".rows.jsonl"
TEMPORARY_SUFFIX = SUFFIX + ".tmp"
DAMAGED_SUFFIX = SUFFIX + ".damaged"

MAX_FILE_BYTES = 1 << 30
"""Some ten million rows; what is larger is not read into memory."""

_MAX_HEADER_BYTES = 1 << 12  # a trial's name has 255 characters, of up to 12 bytes each in JSON
_MAX_SHOWN_NAME = 100
_END_OF_TIME = datetime.max.replace(tzinfo=timezone.utc)

_held: "weakref.WeakSet[SpoolFile]" = weakref.WeakSet()


class SpoolFile:
    """A file of the spool while this process holds its lock."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        _held.add(self)

    def read(self) -> SpooledRows:
        """Read and check all of it; the message of an error names the file."""
        try:
            if os.fstat(self._file.fileno()).st_size > MAX_FILE_BYTES:
                raise DamagedError(f"{self.path} is damaged: no report has more than {MAX_FILE_BYTES:,} bytes")
            self._file.seek(0)
            data = self._file.readall()
        except OSError as error:
            raise SpoolError(f"{self.path} cannot be read: {error.strerror}") from error
        if self.path.name.endswith(TEMPORARY_SUFFIX) and not has_footer(data):
            raise SpoolError(
                f"{self.path} is incomplete: its process ended while it wrote it, and had sent nothing of it"
            )
        try:
            return parse(data)
        except SpoolError as error:
            raise type(error)(f"{self.path} {error}") from error

    def set_aside(self, problem: DamagedError) -> None:
        """Let go of a damaged file under another name, where nobody will trip over it again."""
        path = self.path.with_name(f"{self.path.name.removesuffix('.tmp').removesuffix(SUFFIX)}{DAMAGED_SUFFIX}")
        try:
            self.path.rename(path)
        except OSError as error:
            logger.warning("%s; it cannot be renamed (%s), so remove it", problem, error.strerror)
        else:
            logger.warning("%s; it was set aside as %s, and the other files are delivered", problem, path)
        finally:
            self.release()

    def remove(self) -> None:
        """Delete it and let go of it."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(f"{self.path} cannot be deleted: {error.strerror}") from error
        finally:
            self.release()

    def release(self) -> None:
        """Let go of it and leave it where it is. May be called twice."""
        _held.discard(self)
        self._file.close()


def deliver(directory: str, trial_name: str, logs: Sequence[MetricLog], send: Callable[[], SinkOutcome]) -> SinkOutcome:
    """Let rows lie in the spool while they are sent; a disk that does not take them does not keep them from that."""
    try:
        file = write(Path(directory), trial_name, logs)
    except SpoolError as error:
        logger.warning("Delivering without a spool: %s", error)
        return send()
    try:
        return _removed(file, send(), len(logs))
    except (DeliveryError, ReporterClosedError) as error:
        error.spool_path = str(file.path)
        raise
    except Exception as error:
        failure = DeliveryError(f"{type(error).__name__}: {error}", pending=len(logs))
        failure.spool_path = str(file.path)
        raise failure from error
    finally:
        file.release()


def _removed(file: SpoolFile, outcome: SinkOutcome, rows: int) -> SinkOutcome:
    """Delete the file of rows that are delivered."""
    try:
        file.remove()
    except SpoolError as error:
        logger.warning("The rows are delivered, and a replay will find that: %s", error)
        return replace(outcome, spooled=rows)
    return outcome


def write(directory: Path, trial_name: str, logs: Sequence[MetricLog]) -> SpoolFile:
    """Write rows, in order of time, and sync them to disk; the caller holds the file until they are delivered."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path, file = _create(directory, _name_prefix(trial_name))
        temporary = path.with_name(path.name + ".tmp")
        try:
            for chunk in chunks(trial_name, logs):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            temporary.rename(path)
            sync_folder(directory)
        except BaseException:
            file.close()
            for name in (temporary, path):
                with suppress(OSError):
                    name.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SpoolError(f"rows cannot be spooled to {directory}: {error.strerror or error}") from error
    return SpoolFile(path, file)


def hold(path: Path) -> SpoolFile | None:
    """Take a file that was left behind; None if a process still delivers it, or it is gone."""
    with ExitStack() as opened:
        doing = "opened"
        try:
            file = opened.enter_context(FileIO(path, "rb"))
            doing = "locked"
            if fcntl is not None:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its process may have deleted or renamed it between our opening and our lock.
            if fcntl is None or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                opened.pop_all()
                return SpoolFile(path, file)
        except (FileNotFoundError, BlockingIOError):
            pass
        except OSError as error:
            raise SpoolError(f"{path} cannot be {doing}: {error.strerror}") from error
    return None


def list_files(directory: Path) -> list[Path]:
    """Return the files of the spool in the order in which their rows were reported, unreadable ones last."""
    try:
        names = sorted(path for path in directory.iterdir() if path.name.endswith((SUFFIX, TEMPORARY_SUFFIX)))
        paths = [path for path in names if path.is_file()]  # to open a FIFO would wait for its writer
    except OSError as error:
        raise SpoolError(f"{directory} cannot be read: {error.strerror}") from error
    headers = {path: _read_header(path) for path in paths}
    return sorted(paths, key=lambda path: header.first if (header := headers[path]) else _END_OF_TIME)


def left_behind(directory: str | Path, trial_name: str) -> tuple[int, datetime | None]:
    """Return how many of a trial's deliveries lie in the spool, and the time of their latest row."""
    try:
        names = [path for path in Path(directory).iterdir() if path.name.startswith(_name_prefix(trial_name))]
        paths = [path for path in names if path.name.endswith(SUFFIX) and path.is_file()]  # as above
    except OSError:
        return 0, None  # writing will say why
    headers = [_trusted_header(path) for path in paths]
    times = [header.last for header in headers if header is not None and header.trial_name == trial_name]
    return len(times), max(times, default=None)


def _trusted_header(path: Path) -> Header | None:
    """Return a file's header; where it cannot be right, or would move all rows that are to come, check all of it."""
    header = _read_header(path)
    if header is not None and header.last <= datetime.now(timezone.utc):
        return header
    try:
        file = hold(path)
    except SpoolError:
        return None  # a replay will say why
    if file is None:
        return None  # a living process delivers it
    try:
        file.read()
        if header is None or header.last.year < MAXYEAR:
            return header
        file.set_aside(DamagedError(f"{path} is damaged: its times leave none for later rows"))
    except DamagedError as error:
        file.set_aside(error)
    except SpoolError:
        pass  # as above
    finally:
        file.release()
    return None


def _name_prefix(trial_name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", trial_name)[:_MAX_SHOWN_NAME]


def _create(directory: Path, prefix: str) -> tuple[Path, FileIO]:
    """Create and lock the temporary file of a new path."""
    while True:
        path = directory / f"{prefix}-{os.urandom(8).hex()}{SUFFIX}"
        temporary = path.with_name(path.name + ".tmp")
        file = FileIO(temporary, "xb+")  # unbuffered: a fork in between must not write a buffer twice
        try:
            if fcntl is not None:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a replay opened it at this very moment
            file.close()
            temporary.unlink(missing_ok=True)
            continue
        except OSError:  # a file system without locks, where replay refuses the file
            pass
        return path, file


def _read_header(path: Path) -> Header | None:
    try:
        with path.open("rb") as file:
            return parse_header(file.readline(_MAX_HEADER_BYTES))
    except (OSError, SpoolError):
        return None


@in_forked_child
def _release_all() -> None:
    """Let go of the parent's files: a child delivers nothing of them, and must not keep the locks alive."""
    for file in list(_held):
        file.release()
