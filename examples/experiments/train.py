"""A training that needs no framework, for the experiments in this folder: gradient descent on a valley.

Prints ``name=value`` lines as the StdOut collector reads them, writes them to a file with ``--log``, or reports with
``--push``.
"""

import argparse
import json
import os
from pathlib import Path

from katib_callbacks import report_metrics


def train(learning_rate: float, momentum: float, epochs: int, checkpoint: Path | None = None) -> list[float]:
    """Return the loss after each epoch; it diverges where the learning rate is too great.

    Args:
        learning_rate: Of gradient descent, as the next one.
        momentum: Share of the speed that is kept.
        epochs: How many steps.
        checkpoint: A file to go on from, if it is there, and to write in the end.
    """
    x, y, speed_x, speed_y = -1.5, 2.0, 0.0, 0.0
    if checkpoint is not None and checkpoint.exists():
        x, y, speed_x, speed_y = json.loads(checkpoint.read_text())
    losses = []
    for _ in range(epochs):
        speed_x = momentum * speed_x - learning_rate * 2 * x
        speed_y = momentum * speed_y - learning_rate * 20 * y
        x, y = x + speed_x, y + speed_y
        losses.append(min(x**2 + 10 * y**2, 1e6))
    if checkpoint is not None:
        checkpoint.write_text(json.dumps([x, y, speed_x, speed_y]))
    return losses


def main() -> None:
    """Train once, on rank zero's behalf if there are several processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--optimizer", choices=["sgd", "nesterov"], default="sgd")
    parser.add_argument("--push", action="store_true", help="report instead of printing")
    parser.add_argument("--words", action="store_true", help="print `loss is 0.5` in place of `loss=0.5`")
    parser.add_argument("--show", metavar="NAME", help="print an environment variable before")
    parser.add_argument("--log", type=Path, help="write to this file instead of printing")
    parser.add_argument("--checkpoint", type=Path, help="go on from this folder's checkpoint, and leave one there")
    arguments = parser.parse_args()

    if arguments.show is not None:
        print(f"{arguments.show} is {os.environ.get(arguments.show)}")
    rank = os.environ.get("RANK", "0")
    size = os.environ.get("WORLD_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE", "1")
    momentum = arguments.momentum / (2 if arguments.optimizer == "nesterov" else 1)
    checkpoint = arguments.checkpoint and arguments.checkpoint / "state.json"
    losses = train(arguments.lr, momentum, arguments.epochs, checkpoint)
    accuracy = 1 / (1 + losses[-1])
    if not arguments.push:
        equals = " is " if arguments.words else "="
        lines = [*(f"loss{equals}{loss:.6f}" for loss in losses), f"accuracy{equals}{accuracy:.6f}"]
        if arguments.log is None:
            print(*lines, sep="\n")
        else:
            arguments.log.write_text("\n".join(lines) + "\n")
    elif rank == "0":
        report_metrics({"loss": losses[-1], "accuracy": accuracy, "world-size": int(size)})


if __name__ == "__main__":
    main()
