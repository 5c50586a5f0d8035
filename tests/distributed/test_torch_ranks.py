"""torch.distributed: a loop by hand under torchrun, and on two nodes."""


def test_a_loop_by_hand_under_torchrun(trial):
    trial.torchrun("torch_loop.py")
    trial.wait()

    assert trial.rows() == [("weight", 0.46875), ("again", 0.46875)]
    trial.assert_rank_zero_alone_reported()
    told = trial.testimonies()
    assert any("thread" in event for event in told[0]["events"])  # the one for the second sink
    assert told[1]["receipt"] == "skipped"
    # Once, however often it would have reported.
    assert told[1]["said"] == ["INFO: This process is rank 1 (torch.distributed=1), not rank zero: it reports nothing."]


def test_two_nodes_of_two_processes(trial, tmp_path):
    # Each agent is a pod with a node rank in its environment, which is no process's rank.
    options = ("--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1")
    meeting = ("--rdzv-id", "test", "--rdzv-endpoint", tmp_path / "rendezvous", "--rdzv-conf", "store_type=file")
    for node in ("0", "1"):
        trial.torchrun(*options, *meeting, "torch_loop.py", name=f"node-{node}", PET_NODE_RANK=node, RANK=node)
    trial.wait()

    assert [name for name, _ in trial.rows()] == ["weight", "again"]
    trial.assert_rank_zero_alone_reported(ranks=4)
