"""A loop by hand: gradients are averaged over the ranks, and every rank calls the reporter."""

import witness  # isort: skip  # first, to see everything

import argparse

import torch
import torch.distributed as dist

from katib_callbacks import KatibReporter, SinkOutcome


class Beside:
    """A second destination, for which the reporter starts a thread."""

    def send(self, trial_name, logs, *, deadline_s):
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self):
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    witness.leave_process_group_at_exit()
    rank = dist.get_rank()
    weight = torch.zeros(1, requires_grad=True)
    for step in range(arguments.steps):
        (weight - rank).square().sum().backward()
        dist.all_reduce(weight.grad, op=dist.ReduceOp.SUM)
        with torch.no_grad():
            weight -= 0.25 * weight.grad / dist.get_world_size()
        weight.grad = None
        if step == 2:
            witness.light_beacon(rank)

    # Nothing below waits for another rank.
    with KatibReporter(sinks=["katib", Beside()]) as reporter:
        for metric in ("weight", "again"):
            receipt = reporter.report({metric: weight.item()})
    witness.testify(rank, receipt)


if __name__ == "__main__":
    main()
