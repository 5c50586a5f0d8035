"""The status server of local trials, against the facts of the real one, field by field, on a real connection."""

import json
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from homes import wait_until

from katib_callbacks import KatibReporter
from katib_callbacks.errors import RejectedError, UnavailableError
from katib_callbacks.local.trainer.status_server import MAX_CONNECTIONS, TOKEN_S, TrainerStatusServer
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.settings import Runtime

WHEN = "2026-01-31T12:00:00Z"


class Clock:
    """Goes on when the test says so."""

    now_s = 0.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(clock):
    one = TrainerStatusServer("team", runtime=Runtime(monotonic=lambda: clock.now_s))
    yield one
    one.stop()


@pytest.fixture
def trial(server, tmp_path):
    return Trial(server, tmp_path, "a")


class Trial:
    """A trial that may post."""

    def __init__(self, server, folder, name):
        self.files = TrialFiles(folder, "job", name)
        self.files.prepare()
        self.variables = server.admit(name, self.files)
        self.url = self.variables["KUBEFLOW_TRAINER_SERVER_URL"]
        self.context = ssl.create_default_context(cafile=self.variables["KUBEFLOW_TRAINER_SERVER_CA_CERT"])

    @property
    def port(self):
        return urllib.parse.urlsplit(self.url).port

    @property
    def token(self):
        return Path(self.variables["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text("ascii")

    def send(self, body, *, url=None, token=None):
        """Post a body as it is; returns the answer's status and message."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        request = urllib.request.Request(url or self.url, body, headers)  # noqa: S310  an https one
        try:
            with urllib.request.urlopen(request, context=self.context) as answer:  # noqa: S310  as above
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or "{}").get("message")

    def post(self, **status):
        return self.send(json.dumps({"trainerStatus": {"lastUpdatedTime": WHEN, **status}}).encode())[0]

    def reporter(self, **options):
        return KatibReporter(**options, _runtime=Runtime(environ=lambda: self.variables))


def metrics(count, name="m", value="1"):
    return [{"name": f"{name}{number}", "value": value} for number in range(count)]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ({}, 200),
        ({"lastUpdatedTime": None}, 422),
        ({"lastUpdatedTime": "2026-01-31 12:00:00"}, 422),
        ({"lastUpdatedTime": 5}, 422),
        ({"lastUpdatedTime": "2026-01-31T12:00:00.123456+01:00"}, 200),
        ({"progressPercentage": 0}, 200),
        ({"progressPercentage": 100}, 200),
        ({"progressPercentage": 101}, 422),
        ({"progressPercentage": -1}, 422),
        ({"progressPercentage": 1.5}, 422),
        ({"progressPercentage": "1"}, 422),
        ({"progressPercentage": True}, 422),
        ({"estimatedRemainingSeconds": 2**31 - 1}, 200),
        ({"estimatedRemainingSeconds": 2**31}, 422),
        ({"estimatedRemainingSeconds": -1}, 422),
        ({"metrics": metrics(256)}, 200),
        ({"metrics": metrics(257)}, 422),
        ({"metrics": [{"name": "ü" * 64, "value": "NaN"}]}, 200),
        ({"metrics": [{"name": "ü" * 65, "value": "1"}]}, 422),
        ({"metrics": [{"name": "", "value": "1"}]}, 422),
        ({"metrics": [{"name": "a", "value": ""}]}, 422),
        ({"metrics": [{"name": "a", "value": "1" * 65}]}, 422),
        ({"metrics": [{"name": "a", "value": 1}]}, 422),
        ({"metrics": [{"name": "a"}]}, 422),
        ({"metrics": [{"name": "a", "value": "1"}, {"name": "a", "value": "-inf"}]}, 200),
    ],
)
def test_each_field_is_judged(trial, status, answer):
    assert trial.post(**status) == answer


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 60_000, b"[]", b"{}", b'{"trainerStatus": null}', b'{"trainerStatus": []}']
)
def test_what_is_no_status_is_refused(trial, body):
    assert trial.send(body)[0] == 422


def test_a_body_has_a_limit(trial):
    whole = json.dumps({"trainerStatus": {"lastUpdatedTime": WHEN}}).encode()

    assert trial.send(whole.ljust(65_536))[0] == 200
    assert trial.send(whole.ljust(65_537)) == (413, "Payload too large")


def test_a_status_replaces_the_last_one_as_a_whole(trial, server):
    trial.post(progressPercentage=50, estimatedRemainingSeconds=9, metrics=metrics(2))
    trial.post(lastUpdatedTime="2026-01-31T12:00:01.9Z", metrics=metrics(1, value="2"))

    assert trial.files.status == {"lastUpdatedTime": "2026-01-31T12:00:01Z", "metrics": metrics(1, value="2")}
    assert [(one.name, one.value) for one in server.dismiss("a")] == [("m0", "2")]


def test_a_refused_status_changes_nothing(trial):
    trial.post(progressPercentage=50)
    trial.post(progressPercentage=101)

    assert trial.files.status == {"lastUpdatedTime": WHEN, "progressPercentage": 50}


def test_each_trial_has_a_token_of_its_own(trial, server, tmp_path):
    other = Trial(server, tmp_path, "b")

    assert trial.send(b"{}", token=other.token) == (403, "Forbidden")
    assert trial.send(b"{}", token="") == (403, "Forbidden")
    assert trial.send(b"x" * 65_537, token="x" * 40)[0] == 403, "before the body is looked at"
    assert trial.send(b"{}", url=trial.url.replace("/a/", "/none/")) == (403, "Forbidden")
    assert trial.token != other.token


def test_paths(trial):
    assert trial.send(b"{}", url=trial.url.replace("/team/", "/other/"))[0] == 404
    assert trial.send(b"{}", url=trial.url + "/more")[0] == 404
    assert trial.send(b"{}", url=trial.url.replace("/apis/", "//apis/"))[0] == 307


def test_a_trial_that_has_ended_is_not_found(trial, server):
    server.dismiss("a")

    assert trial.post() == 404


def test_only_the_name_in_the_certificate_is_right(trial):
    """The real one's has one name as well, and no address."""
    with pytest.raises(urllib.error.URLError, match="IP address mismatch"):
        trial.send(b"{}", url=trial.url.replace("localhost", "127.0.0.1"))
    stranger = ssl.create_default_context()
    with socket.create_connection(("localhost", trial.port)) as connection, pytest.raises(ssl.SSLCertVerificationError):
        stranger.wrap_socket(connection, server_hostname="localhost")


def test_a_token_expires_and_is_replaced_before(trial, clock):
    first = trial.token
    clock.now_s += 0.8 * TOKEN_S
    wait_until(lambda: trial.token != first)
    assert trial.send(b"{}", token=first)[0] == 422, "both are valid for a while"

    clock.now_s += 0.2 * TOKEN_S
    assert trial.send(b"{}", token=first)[0] == 403
    assert trial.post() == 200


def test_a_reporter_follows_a_token_that_is_replaced(trial, clock):
    first = trial.token
    with trial.reporter() as reporter:
        reporter.report({"loss": 1})
        clock.now_s += 0.8 * TOKEN_S
        wait_until(lambda: trial.token != first)
        clock.now_s += 0.2 * TOKEN_S
        assert reporter.report({"loss": 2}).delivered == 1
    assert trial.files.status["metrics"] == [{"name": "loss", "value": "2"}]


def test_a_reporter_with_an_expired_token_is_told_so(trial, clock, tmp_path):
    """Where the kubelet does not replace it: the file has the old one still."""
    old = tmp_path / "old"
    old.write_text(trial.token)
    trial.variables["KUBEFLOW_TRAINER_SERVER_TOKEN"] = str(old)
    clock.now_s += 2 * TOKEN_S

    with trial.reporter() as reporter, pytest.raises(RejectedError, match=r"403 .*or has expired"):
        reporter.report({"loss": 1})


def test_a_reporter_says_of_a_refusal_what_it_means(trial, server):
    with trial.reporter() as reporter:
        server.dismiss("a")
        with pytest.raises(RejectedError, match="there is no such TrainJob"):
            reporter.report({"loss": 1})
    stranger = Trial(server, trial.files.folder, "b")
    trial.variables["KUBEFLOW_TRAINER_SERVER_URL"] = stranger.url
    with trial.reporter() as reporter, pytest.raises(RejectedError, match="not one of a pod of this TrainJob"):
        reporter.report({"loss": 1})


def test_a_connection_that_says_nothing_keeps_nobody_waiting(trial):
    with socket.create_connection(("localhost", trial.port)):
        assert trial.post() == 200


def test_so_many_connections_at_a_time_and_then_no_more(trial):
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("localhost", trial.port), timeout=90))
            for _ in range(MAX_CONNECTIONS + 1)
        ]
        assert silent[-1].recv(1) == b""
        for one in silent[:10]:
            one.close()
        wait_until(lambda: _is_answered(trial))


def _is_answered(trial):
    try:
        return trial.post() == 200
    except OSError:
        return False


def test_a_server_that_hangs_is_given_up_within_the_deadline(trial):
    """The address of one that accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = trial.url.replace(str(trial.port), str(silent.getsockname()[1]))
        trial.variables["KUBEFLOW_TRAINER_SERVER_URL"] = elsewhere
        with trial.reporter(timeout_s=0.5) as reporter, pytest.raises(UnavailableError, match="was not shown"):
            reporter.report({"loss": 1})


def test_many_trials_end_at_once_and_each_shows_its_end(server, tmp_path):
    trials = [Trial(server, tmp_path, f"t{number}") for number in range(20)]

    def end(number):
        with trials[number].reporter() as reporter:
            reporter.report({"loss": number})

    threads = [threading.Thread(target=end, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [server.dismiss(f"t{number}")[0].value for number in range(20)] == [str(number) for number in range(20)]
