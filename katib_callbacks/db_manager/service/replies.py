"""Replies with rows, written as they are read: from the database's columns to a message's bytes, in one pass.

They are those of ``GetObservationLogReply`` (``wire.messages``). A protobuf object for each row would take twenty times
as much memory as its bytes, and most of the time.
"""

import io
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime

import grpc

from katib_callbacks.db_manager.service.limits import Places
from katib_callbacks.db_manager.store.errors import BusyError, TooLargeError

MAX_REPLY_BYTES = 128 * 1024 * 1024
"""Two million rows of a number each. Without a limit one reply could fill the memory."""

LARGE_REPLY_BYTES = 1024 * 1024
"""What a reply takes before it needs a place: 20,000 rows of a number each."""

MAX_LARGE_REPLIES = 2
LARGE_REPLY_WAIT_S = 30.0
LARGE_REPLY_TIMEOUT_S = 60.0
"""How long such a reply waits for its place, and may take to be read and sent."""

_FIELD_1, _FIELD_2 = b"\x0a", b"\x12"  # number and wire type of a field with a length
_LENGTH_BYTES = 5
_SHORT = 0x80  # below it a length is one byte


class LargeReplyError(BusyError):
    """There is no place for a large reply."""


class LargeReplies:
    """The places of replies that take much memory: of all listeners, until the client has them. Thread-safe."""

    def __init__(self) -> None:
        self._places = Places(MAX_LARGE_REPLIES, "other large replies are being sent; try again")

    def place(self, context: grpc.ServicerContext) -> "LargePlace":
        """Return a call's place, which it has not taken."""
        return LargePlace(self._places, context)


class LargePlace:
    """A place that a call may take until it is over."""

    def __init__(self, places: Places, context: grpc.ServicerContext) -> None:
        self._places = places
        self._context = context
        self._is_taken = False

    def take(self, *, timeout_s: float = 0.0) -> None:
        """Take the place, unless it is taken; LargeReplyError if none becomes free in time."""
        if self._is_taken:
            return
        with ExitStack() as place:
            try:
                place.enter_context(self._places.enter(timeout_s=timeout_s))
            except BusyError as error:
                raise LargeReplyError(str(error)) from error
            timer = threading.Timer(LARGE_REPLY_TIMEOUT_S, self._context.cancel)  # a client may never read it
            timer.daemon = True
            place.callback(timer.cancel)
            give_back = place.pop_all().close
            if self._context.add_callback(give_back):
                timer.start()
            else:  # the call is over already
                give_back()
            self._is_taken = True


class ReplyWriter:
    """A reply under way; ``become_large`` is called before it takes much memory, and may raise."""

    def __init__(self, become_large: Callable[[], None]) -> None:
        self._become_large = become_large
        self._buffer = io.BytesIO()
        self._buffer.write(_FIELD_1 + bytes(_LENGTH_BYTES))  # the length is filled in at the end
        self._names: dict[str, bytes] = {}
        self.rows = 0

    def add(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Append rows: metric name, value, and the database's time; TooLargeError if no client can get so many."""
        names = self._names
        pieces = []
        for name, value, time in rows:
            name_field = names.get(name)
            if name_field is None:
                name_field = names[name] = _field(_FIELD_1, name.encode())
            metric = b"%b%b" % (name_field, _field(_FIELD_2, value.encode()))
            pieces.append(_field(_FIELD_1, b"%b%b" % (_field(_FIELD_1, format_as_go(time)), _field(_FIELD_2, metric))))
        self.rows += len(pieces)
        self._buffer.write(b"".join(pieces))
        size = self._buffer.tell()
        if size > LARGE_REPLY_BYTES:
            self._become_large()
        if size > MAX_REPLY_BYTES:
            raise TooLargeError(f"the rows are larger than max ({MAX_REPLY_BYTES} bytes); ask for a metric, or by time")

    def finish(self) -> bytes:
        """Return the reply."""
        length = self._buffer.tell() - 1 - _LENGTH_BYTES
        self._buffer.seek(1)
        self._buffer.write(_varint(length, _LENGTH_BYTES))
        return self._buffer.getvalue()  # not copied


def format_as_go(time: str) -> bytes:
    """Return RFC 3339 in UTC as Go's ``time.RFC3339Nano`` prints it, of naive UTC ``2026-01-31 12:00:00.123456``."""
    datetime.fromisoformat(time)
    text = f"{time[:10]}T{time[11:]}"
    return ((text.rstrip("0").rstrip(".") if "." in text else text) + "Z").encode()


def _field(tag: bytes, data: bytes) -> bytes:
    length = len(data)
    if length < _SHORT:
        return b"%b%c%b" % (tag, length, data)
    return tag + _varint(length) + data


def _varint(number: int, width: int = 0) -> bytes:
    """Return a number in groups of seven bits, the lowest first; in ``width`` bytes where it is given."""
    groups = bytearray()
    while number >= _SHORT or len(groups) < width - 1:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
