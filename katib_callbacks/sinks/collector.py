"""Collector: what reads the output or a file of this trial, in Katib's modes StdOut and File.

Nothing tells a trial of its collector, so it is told by what Katib's webhook makes of the primary container
(wrapWorkerContainer in pkg/webhook/v1beta1/pod/utils.go): a shell runs ``COMMAND 1>/var/log/katib/metrics.log 2>&1 &&
echo completed > /var/log/katib/$$.pid``, in File mode without the redirection; and by the command of the sidecar, which
shares the pod's process namespace. The runner of local trials says it in a variable.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime

METRICS_LOG = "/var/log/katib/metrics.log"
"""Where StdOut mode leads the output, and File mode's default (pkg/metricscollector/v1beta1/common/const.go)."""

STDOUT, FILE = "StdOut", "File"
TEXT, JSON = "TEXT", "JSON"

_REDIRECTION = r" 1>(\S+) 2>&1(?: \|\| if test -f .*; fi)? && echo completed > "
_MARK = r" && echo completed > (\S*)/\$\$\.pid$"
_MAX_ANCESTORS = 32
_PROC = "/proc"


class Collector(NamedTuple):
    """A collector of this trial.

    Args:
        kind: ``StdOut``, ``File`` or, where a sidecar reads something else, ``other``.
        sign: What it was told by.
        path: The file that it reads; None if that is not known.
        file_format: ``TEXT`` or ``JSON``.
        filters: Regular expressions (Go's) for lines, with a group for the name and one for the value; none for
            Katib's own.
        lost: Where this process's output goes if it does not come to a collector of output; None if it does.
    """

    kind: str
    sign: str
    path: str | None = None
    file_format: str = TEXT
    filters: tuple[str, ...] = ()
    lost: str | None = None


def collector_here(runtime: Runtime, trial_name: str | None) -> Collector | None:
    """Find the collector of this trial; None in Push mode. Reads a few files of ``/proc``, in a trial only."""
    local = runtime.variable(settings.LOCAL_COLLECTOR)
    if local is not None:
        return _local(local)
    if trial_name is None or runtime.variable(settings.LOCAL_ATTEMPT) is not None:
        return None
    if _is_output(METRICS_LOG):
        return _sidecar(trial_name, Collector(STDOUT, f"descriptor 1 is {METRICS_LOG}", METRICS_LOG))
    script = next((found for each in _scripts_above() if (found := re.search(_MARK, each)) is not None), None)
    if script is None:
        return None
    folder = script[1]
    sign = f"a shell above this process ends with: echo completed > {folder}/$$.pid"
    redirection = re.search(_REDIRECTION, script.string)
    if redirection is not None and os.path.dirname(redirection[1]) == folder:  # noqa: PTH120  pathlib is not imported for this
        return _sidecar(trial_name, Collector(STDOUT, sign, redirection[1], lost=_lost(redirection[1])))
    path = METRICS_LOG if folder == os.path.dirname(METRICS_LOG) else None  # noqa: PTH120  as above
    return _sidecar(trial_name, Collector(FILE, sign, path))


def told(kind: str, path: str, file_format: str, filters: Sequence[str]) -> str:
    """Return what the runner of local trials sets ``KATIB_CALLBACKS_LOCAL_COLLECTOR`` to."""
    import json  # noqa: PLC0415  in local trials only

    return json.dumps({"kind": kind, "path": path, "file_format": file_format, "filters": list(filters)})


def _local(text: str) -> Collector:
    import json  # noqa: PLC0415  as above

    try:
        said = json.loads(text)
        kind, path, filters = str(said["kind"]), str(said["path"]), tuple(map(str, said["filters"]))
        lost = _lost(path) if kind == STDOUT else None
        return Collector(kind, f"{settings.LOCAL_COLLECTOR} is set", path, str(said["file_format"]), filters, lost)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{settings.LOCAL_COLLECTOR} is set by the runner of local trials, not by hand; it cannot be read: {text!r}"
        ) from error


def _is_output(path: str) -> bool:
    """Return whether descriptor 1 is this file."""
    try:
        return os.path.samestat(os.fstat(1), os.stat(path))  # noqa: PTH116  as above
    except OSError:
        return False


def _lost(path: str) -> str | None:
    """Return the file to which descriptor 1 leads in place of ``path``; None for that one, a pipe or a terminal."""
    target = _link(f"{_PROC}/self/fd/1")
    return target if target.startswith("/") and not target.startswith("/dev/pts/") and not _is_output(path) else None


def _scripts_above() -> Iterator[str]:
    """Yield the last argument of each process above this one, the nearest first."""
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        if pid < 1:
            return
        yield (_arguments(pid) or [""])[-1]
        status = _read(f"{_PROC}/{pid}/stat").rpartition(")")[2].split()
        pid = int(status[1]) if len(status) > 1 else 0


def _sidecar(trial_name: str, found: Collector) -> Collector:
    """Return what the command of the trial's sidecar adds; as it is where none is seen, such as before its start."""
    for name in filter(str.isdigit, _entries(_PROC)):
        arguments = _arguments(int(name))
        options = dict(zip(arguments, arguments[1:], strict=False))  # noqa: RUF007  without itertools
        if options.get("-t") != trial_name or "-path" not in options:
            continue
        if "-format" not in options:  # that of event files has none
            return found._replace(kind=found.kind if found.kind == STDOUT else "other", path=options["-path"])
        filters = tuple(filter(None, options.get("-f", "").split(";")))
        return found._replace(path=options["-path"], file_format=options["-format"], filters=filters)
    return found


def _arguments(pid: int) -> list[str]:
    return _read(f"{_PROC}/{pid}/cmdline").rstrip("\0").split("\0")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  as above
            return file.read()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  as above
    except OSError:
        return ""


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  as above
    except OSError:
        return []
