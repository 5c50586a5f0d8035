"""What a training's progress is, whatever the framework: each framework's tests hold theirs to this."""

from katib_callbacks import SinkOutcome
from katib_callbacks.reporting.progress import ALMOST_DONE

EPOCHS, STEPS = 3, 4
"""Of the training that all frameworks do."""


def fractions(steps=EPOCHS * STEPS, *, first=0, total=EPOCHS * STEPS):
    """Return the curve of a training that ends normally after ``steps``."""
    return [*(min(step / total, ALMOST_DONE) for step in range(first, steps + 1)), 1.0]


PERCENTAGES = [0, 8, 16, 25, 33, 41, 50, 58, 66, 75, 83, 91, 99, 100]
"""The same curve as the status server gets it."""


def without_repetitions(values):
    return [value for number, value in enumerate(values) if number == 0 or value != values[number - 1]]


class Curve:
    """A sink."""

    def __init__(self):
        self.told = []
        self.sent = []

    def progress(self, fraction, remaining_s, latest):
        self.told.append((fraction, remaining_s, dict(latest)))

    def send(self, trial_name, logs, *, deadline_s):
        self.sent.append({log.name: log.value for log in logs})
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self):
        pass

    @property
    def fractions(self):
        """Each once, exact to what a float can do."""
        return without_repetitions([None if told[0] is None else round(told[0], 9) for told in self.told])

    @property
    def latest(self):
        """The latest metrics, each state once."""
        return without_repetitions([told[2] for told in self.told])


def rounded(values):
    return [round(value, 9) for value in values]


class Gate:
    """Stands after our callback: lets no step pass before the status server has seen it."""

    def __init__(self, server):
        self.server = server
        self.expected = iter(PERCENTAGES[:-1])

    def pass_step(self):
        """Call it when training has begun, and after each step."""
        percentage = next(self.expected)
        self.server.wait_for(lambda: self.server.percentages[-1:] == [percentage])


def assert_same_curve(server):
    """Check what the status server has seen of a training of EPOCHS and STEPS behind a gate."""
    assert without_repetitions(server.percentages) == PERCENTAGES
    assert all(one.status == 200 for one in server.seen)
    assert server.seen[-1].remaining_s == 0


def assert_trained_beside_a_hanging_server(server, receipt):
    """Check what came of a training under a server that hangs: it is still under way, the training is over."""
    assert server.begun <= 2, "the request that hung through the training, and the final one"
    assert receipt.sinks["katib"].delivered == 1
    assert receipt.sinks["trainjob"].error == "still sending when it was asked for"
    server.behave_always(None)
    server.release()
    server.wait_for(lambda: 100 in server.percentages)
