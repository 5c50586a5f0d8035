"""MetricsFileSink: the destination ``metrics-file``, a file that Katib's File collector reads."""

from collections.abc import Sequence

from katib_callbacks.errors import DeliveryError
from katib_callbacks.net.masking import scheme_of
from katib_callbacks.sinks import SinkOptions
from katib_callbacks.sinks.collector import FILE, JSON, TEXT, Collector
from katib_callbacks.sinks.file import SharedFile, path_of
from katib_callbacks.sinks.lines import LineSink


class MetricsFileSink(LineSink):
    """Appends a line for each row to the file that the collector of this trial reads, or to that of the name.

    The file is ``metrics-file:///path`` for text and ``metrics-file+json:///path`` for JSON. The name alone is the file
    that the collector's own command names: it is looked for when rows are sent, since its container starts later.
    """

    def __init__(self, options: SinkOptions) -> None:
        super().__init__(options, options.label)
        scheme = scheme_of(options.name)
        self._given_format = JSON if scheme.endswith("+json") else TEXT
        after = options.name.removeprefix(scheme).removeprefix(":")
        self._given_path = path_of(after, options) if options.name != scheme else None
        self._files: dict[str, SharedFile] = {}

    def close(self) -> None:
        """End a ``send`` that waits for the file's lock."""
        for file in self._files.values():
            file.close()

    def _format(self, collector: Collector | None) -> str:
        return super()._format(collector) if self._given_path is None else self._given_format

    def _write(self, lines: Sequence[str], collector: Collector | None, end_s: float, *, row_count: int) -> None:
        path = self._given_path
        if path is None and collector is not None and collector.kind == FILE:
            path = collector.path
        if path is None:
            raise DeliveryError(
                "metrics-file: no collector of files is seen beside this process, so its file is not known; name it, "
                "as in metrics-file:///var/log/katib/metrics.log, or use the sink 'katib'",
                attempts=0,
                pending=row_count,
            )
        if path not in self._files:
            self._files[path] = SharedFile(path, self._runtime)
        try:
            self._files[path].append(lines, end_s - self._runtime.monotonic())
        except DeliveryError as error:
            error.pending = row_count
            raise
