"""A loop by hand that no torch process group knows of when it reports: every process calls the reporter."""

import witness  # isort: skip  # first, to see everything

import argparse
import os

from katib_callbacks import KatibReporter


def train(rank: int) -> None:
    """Report ``score``, which is 0.25 on rank zero and 0.75 on rank one."""
    with KatibReporter() as reporter:
        receipt = reporter.report({"score": 0.25 + 0.5 * rank})
    witness.testify(rank, receipt)


def train_in_jax(rank: int, *, is_shut_down: bool) -> None:
    """Join the other process as JAX' documentation has it; JAX computes nothing before the report."""
    import jax  # noqa: PLC0415  only here

    jax.distributed.initialize(os.environ["COORDINATOR"], 2, rank)
    if is_shut_down:
        jax.distributed.shutdown()
    train(rank)


def train_in_torch(index: int, first_rank: int, has_group: bool) -> None:
    """Run in a child of ``mp.spawn``, which leaves its process group before it reports."""
    import torch  # noqa: PLC0415  only here
    import torch.distributed as dist  # noqa: PLC0415

    rank = first_rank + index
    if has_group:
        address = f"tcp://{os.environ['COORDINATOR']}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
        dist.all_reduce(torch.ones(1))
        dist.destroy_process_group()
    train(rank)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--by", choices=["launcher", "jax", "jax-that-is-shut-down", "spawn", "spawn-alone"])
    arguments = parser.parse_args()
    if arguments.by.startswith("spawn"):
        import torch.multiprocessing as mp  # noqa: PLC0415  only here

        mp.spawn(train_in_torch, (arguments.rank, arguments.by == "spawn"), nprocs=2)
    elif arguments.by.startswith("jax"):
        train_in_jax(arguments.rank, is_shut_down=arguments.by != "jax")
    else:
        train(arguments.rank)


if __name__ == "__main__":
    main()
