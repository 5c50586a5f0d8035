"""The processes of experiments that the API has begun, looked after without a server."""

import time

from api_servers import experiment

from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.api_server.runs import Runs
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.store import ExperimentStore


def test_an_experiment_that_cannot_be_started_fails_and_tells_why(tmp_path):
    manifest = read(experiment("lost")).serialize()
    manifest["spec"]["algorithm"]["algorithmName"] = "of-a-later-release"
    runs = Runs(tmp_path)
    with ExperimentStore(runner.database(tmp_path)) as store:
        store.add_experiment("lost", manifest, seed=1, folder=tmp_path)
        runs.start("lost")
        while store.experiment("lost").state != "Failed":
            runs.look_after()
            time.sleep(0.1)
        row = store.experiment("lost")

    assert row.completed_s is not None
    assert "of-a-later-release" in row.conditions[-1]["message"]
    assert str(tmp_path / "lost" / "runner.log") in row.conditions[-1]["message"]
    runs.look_after()  # what has failed is not started again
    assert not runner.is_run(tmp_path, "lost")
