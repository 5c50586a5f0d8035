"""What a framework must offer to be put through the scenarios."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

EPOCHS = 2
"""Of a training, where the scenario does not say."""


def scripted(scores: Iterable[float] | None) -> Iterator[float]:
    """Yield the score of each validation: those given, else 0.1, 0.2 and so on."""
    return iter(scores) if scores is not None else (number / 10 for number in itertools.count(1))


class Training(ABC):
    """A framework's trainer with a tiny model of its own, made and not yet run."""

    @abstractmethod
    def train(self, checkpoint: Any = None) -> None:
        """Train, from a checkpoint of ``Driver.interrupted`` on where there is one."""

    @abstractmethod
    def evaluate(self) -> None:
        """Evaluate on the validation data, which takes the next score."""

    def test(self) -> None:
        """Evaluate on test data, where the framework knows the difference."""
        raise NotImplementedError

    @property
    @abstractmethod
    def epochs(self) -> int:
        """How many epochs have been trained."""

    @property
    @abstractmethod
    def losses(self) -> Sequence[float]:
        """The loss of each epoch, as the framework itself shows it; for trainings of one step an epoch or without."""

    @property
    @abstractmethod
    def held_epoch(self) -> int:
        """The epoch, from 1, whose model the trainer holds; for trainings that keep models."""

    @property
    @abstractmethod
    def kept_epoch(self) -> int:
        """The epoch, from 1, whose model lies on the disk as the best one; for trainings that save it."""

    @property
    @abstractmethod
    def ours(self) -> list[Any]:
        """The callbacks of ours that stand in it; in Keras, once it was trained."""


class Driver(ABC):
    """A framework: its names for what is measured, and how to train with it."""

    callback: ClassVar[type]
    """Our class for it."""

    score: ClassVar[str]
    """The framework's name of the scripted metric of a validation."""

    loss: ClassVar[str]
    """The name of a metric of training."""

    others: ClassVar[frozenset[str]]
    """All further names that every training shows."""

    bookkeeping: ClassVar[frozenset[str]] = frozenset()
    """Names that the framework may show for its own purposes."""

    misspelt: ClassVar[str]
    """A name that does not exist and whose nearest is ``score``."""

    tested: ClassVar[str | None] = None
    """The name of a metric that only ``Training.test`` shows; None where evaluations are not reported."""

    puts_back: ClassVar[bool] = True
    """The framework can put the best model back when training is over."""

    patched: ClassVar[tuple[type, str] | None] = None
    """What autolog patches: a class and the name of its method; None where the framework asks for callbacks itself."""

    is_on_by_environment: ClassVar[bool] = False
    """KATIB_CALLBACKS_AUTOLOG suffices, because the framework has entry points."""

    @abstractmethod
    def trainer(
        self,
        *callbacks: Any,
        scores: Iterable[float] | None = None,
        epochs: int = EPOCHS,
        steps: int | None = None,
        validate_every: int | None = 1,
        stops_early: bool = False,
        keeps: Literal["saved", "restored"] | None = None,
        is_ours_first: bool = True,
    ) -> Training:
        """Make a training.

        Args:
            callbacks: The framework's, ours among them.
            scores: One for each validation; by default 0.1, 0.2 and so on.
            epochs: At most so many.
            steps: How many an epoch, for progress; None for whatever is quickest.
            validate_every: So many epochs; None for never.
            stops_early: By the framework's own means, after the first score that is not above all before.
            keeps: By the framework's own means, the model of the greatest score: on the disk, or put back in the end.
            is_ours_first: The callback that keeps it, where it is one, comes after those given.
        """

    @abstractmethod
    def calls(self, *, begin=None, step=None, epoch=None, end=None) -> Any:
        """Return a callback of the framework that calls these: when training begins, after each step, and so on.

        ``end`` comes when the last epoch is over and nothing has been delivered, if the callback stands before ours.
        """

    def interrupted(self, callback: Any, *, scores: Sequence[float], epochs: int, steps: int | None = None) -> Any:
        """Train until there are as many epochs as scores, as a run that is then killed; return its last checkpoint."""
        raise NotImplementedError


def raises(error: BaseException) -> Callable[[], None]:
    """Return what a callback calls to fail."""

    def fail() -> None:
        raise error

    return fail
