"""Asker: asks a DB manager once an epoch whether a training is to stop, and never keeps the training for long.

A failure to ask counts as "go on". What was not answered goes along with the next question, so that an answer that was
lost, or a server that was away, changes no decision.
"""

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime
from katib_callbacks.wire.forks import calling, is_core_inherited

if TYPE_CHECKING:
    from katib_callbacks.settings.early_stopping import Policy
    from katib_callbacks.sinks.katib.endpoint import Endpoint
    from katib_callbacks.wire.client import DBManagerStub

TIMEOUT_S = 2.0
"""For one question, the connection included: the training waits for it, on all ranks."""

PAUSE_FACTOR = 5.0
"""After a question that failed, nothing is asked for so many times as long as it took: a server that hangs may cost a
training of short epochs a sixth of its time, and no more."""

MAX_PENDING_EPOCHS = 10_000
"""Epochs without an answer that are handed in later; what is older is given up."""

_RUN_BYTES = 8
_FINAL = {"UNIMPLEMENTED", "PERMISSION_DENIED", "INVALID_ARGUMENT"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """The answer at an epoch's end: whether to ``stop``, and the ``reason`` for it."""

    stop: bool
    reason: str = ""


GO_ON = Decision(stop=False)


class Asker:
    """One training's questions to one DB manager; for one thread. Pickles without anything live."""

    def __init__(self, endpoint: "Endpoint", trial_name: str, policy: "Policy", runtime: Runtime) -> None:
        self._endpoint = endpoint
        self._trial_name = trial_name
        self._experiment = runtime.variable(settings.EXPERIMENT) or ""
        self._policy = policy.text
        self._runtime = runtime
        self._run = secrets.token_hex(_RUN_BYTES)
        self._pending: list[tuple[int, float]] = []
        self._wait_until_s = 0.0
        self._is_over = self._has_warned = False
        self._stub: DBManagerStub | None = None
        self._decision = GO_ON

    def ask(self, step: int, value: float) -> Decision:
        """Hand in the objective at the end of an epoch, and return what the DB manager says; never raises.

        Blocks for ``TIMEOUT_S`` at most. Once it said stop, it is not asked again, and the answer stays.

        Args:
            step: The epoch's number, or the optimizer step; more than the one before.
            value: Finite.
        """
        if self._is_over:
            return self._decision
        self._pending = [*self._pending[1 - MAX_PENDING_EPOCHS :], (step, value)]
        if self._runtime.monotonic() < self._wait_until_s:
            return GO_ON
        self._decision = self._ask(has_ended=False)
        self._is_over = self._is_over or self._decision.stop
        return self._decision

    def tell_end(self) -> None:
        """Tell that the training ended by itself and has reported: from now on it counts among those that succeeded."""
        if not self._is_over:
            self._ask(has_ended=True)
            self._is_over = True

    def drop(self) -> None:
        """End the call in flight, before a fork."""
        stub, self._stub = self._stub, None
        if stub is not None:
            stub.close()

    def _ask(self, *, has_ended: bool) -> Decision:
        if is_core_inherited():
            self._give_up("this process was forked from one that uses gRPC")
            return GO_ON
        import grpc  # noqa: PLC0415  only when something is sent

        start_s = self._runtime.monotonic()
        try:
            with calling(self):
                self._stub = stub = self._endpoint.open()
                try:
                    stop, reason = stub.judge(
                        self._trial_name,
                        experiment=self._experiment,
                        policy=self._policy,
                        run=self._run,
                        epochs=self._pending,
                        has_ended=has_ended,
                        timeout_s=TIMEOUT_S,
                    )
                finally:
                    self.drop()
                    del stub
        except (grpc.RpcError, ConfigurationError, ValueError) as error:  # ValueError: a channel that a fork closed
            now_s = self._runtime.monotonic()
            self._wait_until_s = now_s + PAUSE_FACTOR * (now_s - start_s)
            self._take_failure(error)
            return GO_ON
        self._pending = []
        if self._has_warned:
            self._has_warned = False
            logger.info("The DB manager at %s answers about early stopping again.", self._endpoint.address)
        return Decision(stop, reason)

    def _take_failure(self, error: Exception) -> None:
        import grpc  # noqa: PLC0415  as in _ask

        status = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        details = " ".join(str(error.details() if isinstance(error, grpc.Call) else error).split())
        if status == "UNIMPLEMENTED":
            self._give_up("it does not know early stopping, as Katib's own does not")
        elif status in _FINAL:
            self._give_up(f"{status}: {details}")
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The DB manager at %s did not say whether to stop early (%s: %s). Training goes on, and it is asked "
                "again at the end of later epochs.",
                self._endpoint.address,
                status,
                details,
            )

    def _give_up(self, why: str) -> None:
        self._is_over = True
        logger.warning(
            "Trial %r is not stopped early: the DB manager at %s is not asked again, because %s.",
            self._trial_name,
            self._endpoint.address,
            why,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stub": None}
