"""The keys of one token issuer, always at hand: fetched in the background, kept while the issuer is away.

A call waits for the issuer in one case: its token names a key that nobody has seen. That may be a new one, so the
caller waits a moment for a fetch that begins after its own arrival.
"""

import logging
import math
import threading
import time
from os import PathLike
from types import MappingProxyType

from katib_callbacks.db_manager.authentication.grant import IssuerUnavailableError
from katib_callbacks.db_manager.authentication.issuer.documents import FetchError, IssuerDocuments
from katib_callbacks.db_manager.authentication.issuer.key_set import IssuerKey
from katib_callbacks.net.http import HTTPRequest

REFRESH_INTERVAL_S = 30.0
"""How often the keys are fetched anew, so that a replaced one is gone within a minute of its removal."""

RETRY_INTERVAL_S = 5.0
"""How soon after a fetch that failed the next one begins."""

MIN_REFRESH_INTERVAL_S = 1.0
"""How far apart fetches for unknown keys begin: whoever invents key ids costs the issuer no more than this."""

FETCH_TIMEOUT_S = 10.0
"""For both documents together."""

UNKNOWN_KEY_WAIT_S = 3.0
"""How long a call waits for a fetch that may bring its key: the shortest interval and a fetch from a server nearby."""

MAX_WAITING_CALLS = 64
"""How many calls may wait so; each keeps one of the server's threads."""

_CLOSE_TIMEOUT_S = 5.0

_logger = logging.getLogger(__name__)


class IssuerKeys:
    """Fetches and holds an issuer's keys, see ``IssuerDocuments``. Thread-safe; has one thread until ``close``."""

    def __init__(
        self,
        issuer: str,
        *,
        ca: str | PathLike[str] | None = None,
        token_path: str | PathLike[str] | None = None,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
    ) -> None:
        self._issuer = issuer
        self._refresh_interval_s = refresh_interval_s
        self._documents = IssuerDocuments(issuer, ca, token_path)
        self._changed = threading.Condition()
        self._keys: MappingProxyType[str, IssuerKey] = MappingProxyType({})
        self._started = 0  # fetches begun
        self._finished = 0  # fetches ended, well or not
        self._succeeded = 0  # the number of the last one that ended well
        self._wanted = 1  # fetches asked for: the first one at once
        self._waiting = 0
        self._failure: str | None = None
        self._request: HTTPRequest | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="katib-callbacks-issuer-keys", daemon=True)
        self._thread.start()

    def find(self, key_id: str) -> IssuerKey | None:
        """Return a key; None if the issuer, asked after this call began, has none of this id.

        Blocks for up to ``UNKNOWN_KEY_WAIT_S``, and only if the key is not known; then IssuerUnavailableError if nobody
        could be asked.
        """
        key = self._keys.get(key_id)  # no lock: the mapping is replaced, never changed
        return key if key is not None else self._find_new(key_id)

    def close(self) -> None:
        """End the thread and whoever waits. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            if self._request is not None:
                self._request.abort()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _find_new(self, key_id: str) -> IssuerKey | None:
        end_s = time.monotonic() + UNKNOWN_KEY_WAIT_S
        with self._changed:
            if self._waiting >= MAX_WAITING_CALLS:
                raise IssuerUnavailableError("too many calls wait for keys of the issuer that are not known yet")
            # A fetch that has begun may have been answered before the key was published, so it takes one that begins
            # from now on; but while there are no keys at all, waiting twice would help nobody.
            is_first_under_way = not self._succeeded and self._started > self._finished
            number = self._started if is_first_under_way else self._started + 1
            self._wanted = max(self._wanted, number)
            self._changed.notify_all()
            self._waiting += 1
            try:
                while self._finished < number and key_id not in self._keys and not self._is_closed:
                    left_s = end_s - time.monotonic()
                    if left_s <= 0:
                        break
                    self._changed.wait(left_s)
            finally:
                self._waiting -= 1
            key = self._keys.get(key_id)
            if key is None and self._is_closed:
                raise IssuerUnavailableError("the server stops")
            if key is None and self._succeeded < number:
                reason = self._failure or "it has not answered yet"
                raise IssuerUnavailableError(f"the key is not known, and the issuer cannot be asked: {reason}")
            return key

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        began_s, interval_s = -math.inf, 0.0
        while self._wait_until(began_s + MIN_REFRESH_INTERVAL_S, began_s + interval_s):
            began_s = time.monotonic()
            keys, failure = self._fetch()
            with self._changed:
                self._finished = self._started
                if keys is not None:
                    self._keys = MappingProxyType(keys)
                    self._succeeded = self._started
                had_failed, self._failure = self._failure, failure
                self._changed.notify_all()
                if self._is_closed:
                    return
            interval_s = self._refresh_interval_s if failure is None else RETRY_INTERVAL_S
            self._tell(had_failed, failure, len(keys or ()))

    def _wait_until(self, soonest_s: float, latest_s: float) -> bool:
        """Wait for the next fetch, sooner if a caller needs one; return False at the end."""
        with self._changed:
            while not self._is_closed:
                due_s = soonest_s if self._wanted > self._started else latest_s
                left_s = due_s - time.monotonic()
                if left_s <= 0:
                    self._started += 1
                    return True
                self._changed.wait(left_s)
            return False

    def _fetch(self) -> tuple[dict[str, IssuerKey] | None, str | None]:
        """Return the keys, or why there are none."""
        deadline_s = time.monotonic() + FETCH_TIMEOUT_S
        try:
            keys = self._documents.fetch_keys(deadline_s, self._note_request)
        except FetchError as error:
            return None, str(error)
        except Exception as error:
            _logger.exception("fetching the issuer's keys failed in a way that was not foreseen")
            return None, type(error).__name__
        finally:
            with self._changed:
                self._request = None
        return keys, None

    def _note_request(self, request: HTTPRequest) -> None:
        with self._changed:
            self._request = request
            if self._is_closed:
                request.abort()

    def _tell(self, had_failed: str | None, failure: str | None, count: int) -> None:
        """Log a change, not each of the attempts of an outage."""
        issuer = {"issuer": self._issuer}
        if failure is not None and failure != had_failed:
            _logger.warning("the issuer's keys cannot be fetched; those that are known stay: %s", failure, extra=issuer)
        elif failure is None and had_failed is not None:
            _logger.warning("the issuer's keys can be fetched again", extra={**issuer, "keys": count})
