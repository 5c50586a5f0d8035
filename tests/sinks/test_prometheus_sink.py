"""The Pushgateway's sink: against Debian's gateway and Prometheus, and against servers that misbehave."""

import base64
import json
import math
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from contextlib import ExitStack

import pytest
from beside import held_port
from certificates import Authority
from http_partners import answer, drip, hang, reset, slowly, wait_until
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from katib_callbacks import KatibReporter, MetricLog, RejectedError, UnavailableError
from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.metrics import name_problem
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime, namespace
from katib_callbacks.sinks import prometheus as pushing
from katib_callbacks.sinks.prometheus import PushgatewaySink, push_request, target_of

if not os.environ.get("TEST_PUSHGATEWAY"):
    pytest.importorskip("prometheus_client", reason="`sinks` has it")
from prometheus_client.parser import text_string_to_metric_families

NAMES = st.text(min_size=1, max_size=40).filter(lambda name: name_problem(name) is None)
GATEWAY = "http://gateway"


class Server:
    """One of Debian's servers, on a free port."""

    def __init__(self, folder, program, *arguments):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {program}")
        self._held = ExitStack()
        self.port = self._held.enter_context(held_port())
        self._log = (folder / f"{program}.log").open("wb")
        command = [program, f"--web.listen-address=127.0.0.1:{self.port}", *arguments]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=folder)
        wait_until(self._is_ready, f"{program} does not start")

    def _is_ready(self):
        assert self._process.poll() is None, "it ended at once"
        try:
            return self.get("/-/ready") is not None
        except OSError:
            return False

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return response.read().decode()

    def stop(self):
        self._process.terminate()
        self._process.wait(60)
        self._log.close()
        self._held.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("gateway"), "prometheus-pushgateway", "--persistence.file=")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, gateway):
    folder = tmp_path_factory.mktemp("prometheus")
    scrape = {"job_name": "gateway", "honor_labels": True, "scrape_interval": "1s"}
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{gateway.port}"]}]
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
    arguments = ("--config.file=prometheus.yml", f"--storage.tsdb.path={folder}/data")
    server = Server(folder, "prometheus", *arguments)
    yield server
    server.stop()


def ask(prometheus, query):
    """Return labels and value of each sample that a PromQL query finds."""
    answer = json.loads(prometheus.get(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    assert answer["status"] == "success", answer
    return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


def held_by(gateway, trial):
    """Return the gauges of a trial that the gateway holds, with all labels."""
    return {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(gateway.get("/metrics"))
        for sample in family.samples
        if sample.labels.get("trial") == trial
    }


def logs(**values):
    return [MetricLog(name, value, DEFAULT_RUNTIME.now()) for name, value in values.items()]


# -- the real thing ------------------------------------------------------------------------------------------------


def test_a_report_can_be_asked_for_with_promql(gateway, prometheus, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_EXPERIMENT", "digits")
    monkeypatch.setenv("KATIB_CALLBACKS_NAMESPACE", "team-a")
    url = f"prometheus+http://127.0.0.1:{gateway.port}"
    with KatibReporter(trial_name="digits-1", sinks=[url]) as reporter:
        first = reporter.report({"val/acc": 0.25, "loss": 1})
        reporter.report({"val/acc": 0.75})

    assert (first.delivered, first.attempts) == (2, 1)
    query = 'katib_val_acc{trial="digits-1"} == 0.75'
    wait_until(lambda: ask(prometheus, query), "Prometheus does not see the report")
    ((labels, _),) = ask(prometheus, query)
    expected = {"job": "katib", "trial": "digits-1", "experiment": "digits", "namespace": "team-a"}
    assert {**labels, **expected} == labels
    assert [value for _, value in ask(prometheus, 'katib_loss{experiment="digits"}')] == [1.0]
    ((_, age_s),) = ask(prometheus, 'time() - push_time_seconds{trial="digits-1"}')
    assert age_s < 3_600
    ((_, failed_at),) = ask(prometheus, 'push_failure_time_seconds{trial="digits-1"}')
    assert failed_at == 0


def test_the_last_value_of_each_metric_is_shown_and_others_stay(gateway, options):
    sink = PushgatewaySink(options(f"prometheus+http://127.0.0.1:{gateway.port}/"))
    history = [log for value in (3.0, 2.0, 1.0) for log in logs(loss=value)]

    assert sink.send("history", history, deadline_s=60).delivered == 3
    sink.send("history", logs(test_loss=math.nan, up=math.inf), deadline_s=60)

    held = held_by(gateway, "history")
    assert held["katib_loss"][1] == 1.0
    assert math.isnan(held["katib_test_loss"][1])
    assert held["katib_up"][1] == math.inf


@pytest.mark.parametrize("trial", [".", "..", "a/b", "a b", "a+b", "100%", "é", '{}"\\\n', "a@base64", "=", "🦆" * 60])
def test_the_gateway_takes_whatever_a_trial_and_a_metric_are_called(gateway, options, trial):
    sink = PushgatewaySink(options(f"prometheus+http://127.0.0.1:{gateway.port}", KATIB_CALLBACKS_EXPERIMENT=trial))

    sink.send(trial, logs(**{trial: 1, "go_goroutines": 2, "push_time_seconds": 3, "ä": 4}), deadline_s=60)

    held = held_by(gateway, trial)
    assert {held[name][1] for name in held if name.startswith("katib_")} == {1.0, 2.0, 3.0, 4.0}
    assert {labels["experiment"] for labels, _ in held.values()} == {trial.strip()}


# -- names, whatever they are --------------------------------------------------------------------------------------


@given(st.dictionaries(NAMES, st.floats(), min_size=1, max_size=8), NAMES, NAMES)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_breaks_the_format_or_the_url(options, values, trial, experiment):
    sink = PushgatewaySink(options("prometheus+http://gateway"))
    safe = sink._names.of(values)
    gauges = {f"katib_{safe[name]}": value for name, value in values.items()}

    request = push_request("http://gateway", gauges, {"trial": trial, "experiment": experiment})

    samples = [one for family in text_string_to_metric_families(request.body.decode()) for one in family.samples]
    assert {one.name: repr(one.value) for one in samples} == {name: repr(value) for name, value in gauges.items()}
    assert len(samples) == len(values)
    assert all(one.labels == {} for one in samples)
    assert decoded(request.url) == {"job": "katib", "trial": trial, "experiment": experiment}


def decoded(url):
    """Read a group from a URL as the gateway does (pushgateway/handler/push.go, decodeBase64 and splitLabels)."""
    assert url.startswith(GATEWAY + "/metrics/")
    segments = url.removeprefix(GATEWAY + "/metrics/").split("/")
    assert not {".", "..", ""} & set(segments)
    labels = {}
    for label, value in zip(segments[::2], segments[1::2], strict=True):
        text = urllib.parse.unquote(value, errors="strict")
        if label.endswith("@base64"):
            text = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        labels[label.removesuffix("@base64")] = text
    return labels


# -- the URL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("http://", "no host"),
        ("http:gateway", "no host"),
        ("http://:9091", "no host"),
        ("http://gateway:port", "cannot be right"),
        ("http://gateway:0", "port 0"),
        ("http://gateway:99999", "cannot be right"),
        ("http://[::1", "cannot be right"),
        ("http://gateway?x=secret-code", "a query"),
        ("http://gate way", "a blank"),
        ("http://gateway\n", "a blank"),
        ("https://user:secret-/code@gateway", "cannot be right"),
        ("https://user:secret-#code@gateway", "cannot be right"),
    ],
)
def test_a_url_that_cannot_be_right_is_said_before_the_training(rest, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        KatibReporter(trial_name="trial", sinks=[f"prometheus+{rest}"])

    assert "secret" not in str(caught.value)
    assert "code" not in str(caught.value)


@given(st.text(min_size=1), st.text())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_user_and_password_travel_and_are_not_shown(options, user, password):
    if name_problem(user + password) not in {None, "has a NUL character, which PostgreSQL cannot store"}:
        return
    quoted = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}"
    target = target_of(options(f"prometheus+https://{quoted}@gateway:9091/prefix"))

    assert target.url == "https://gateway:9091/prefix"
    token = target.authorization["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(token).decode() == f"{user}:{password}"
    assert target.label == "prometheus+https://***@gateway:9091/prefix"
    assert repr(target) == f"Target(label={target.label!r}, url={target.url!r})"


def test_a_missing_client_is_said_before_the_training(monkeypatch):
    # As where the extra is not installed: the finder says that there is no such package.
    monkeypatch.setattr("katib_callbacks.sinks.prometheus.find_spec", lambda _: None)

    with pytest.raises(MissingDependencyError, match=r"katib-callbacks\[prometheus\]"):
        KatibReporter(trial_name="trial", sinks=["prometheus+http://gateway"])


def test_the_namespace_is_that_of_the_variable_then_of_the_pod(tmp_path):
    (tmp_path / "namespace").write_text("from-file\n")
    inside = str(tmp_path / "namespace")

    assert namespace(Runtime(environ=lambda: {"KATIB_CALLBACKS_NAMESPACE": "named"}), inside) == "named"
    assert namespace(Runtime(environ=dict), inside) == "from-file"
    assert namespace(Runtime(environ=dict), str(tmp_path / "nowhere")) is None


# -- servers that misbehave ----------------------------------------------------------------------------------------


def send(options, name):
    return PushgatewaySink(options(name)).send("trial", logs(loss=1), deadline_s=480)


def test_basic_authentication(partner, options):
    send(options, f"prometheus+{partner.origin.replace('//', '//us%40er:p%3Aass%2Cw@')}")

    ((method, path, headers, body),) = partner.requests
    assert (method, path) == ("POST", "/metrics/job/katib/trial/trial")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"us@er:p:ass,w"
    assert b"\nkatib_loss 1.0\n" in body


@pytest.mark.parametrize(
    ("behaviour", "error", "tries"),
    [
        (answer(401, "who are\n you?"), RejectedError, 1),
        (answer(400, "secret-code"), RejectedError, 1),
        (answer(303, Location="/elsewhere"), RejectedError, 1),
        (answer(503), UnavailableError, 3),
        (answer(429), UnavailableError, 3),
        (reset, UnavailableError, 3),
    ],
    ids=["unauthorised", "echo", "see other", "overloaded", "too many", "reset"],
)
def test_an_answer_that_is_none_is_an_error_without_the_password(partner, options, behaviour, error, tries):
    partner.behave = behaviour

    with pytest.raises(error) as caught:
        send(options, f"prometheus+{partner.origin.replace('//', '//user:secret-code@')}")

    assert (caught.value.attempts, caught.value.pending, len(partner.requests)) == (tries, 1, tries)
    assert "***@127.0.0.1" in str(caught.value)
    assert "secret-code" not in str(caught.value)


def test_a_proxy_that_answers_with_the_headers_shows_no_password(partner, options):
    partner.behave = lambda handler: answer(403, str(handler.headers))(handler)
    with pytest.raises(RejectedError, match=r"answered 403 .*Basic \*\*\*") as caught:
        send(options, f"prometheus+{partner.origin.replace('//', '//user:s3cret@')}")

    assert base64.b64encode(b"user:s3cret").decode() not in str(caught.value)


def test_a_server_that_recovers_gets_the_push(partner, options):
    def recover(handler):
        answer(503 if len(partner.requests) < 3 else 202)(handler)

    partner.behave = recover

    assert send(options, f"prometheus+{partner.origin}").attempts == 3


@pytest.mark.parametrize("behaviour", [hang, drip], ids=["hang", "drip"])
def test_a_server_that_does_not_answer_is_given_up(partner, options, behaviour, monkeypatch):
    monkeypatch.setattr(pushing, "TRY_TIMEOUT_S", 0.3)
    partner.behave = behaviour

    with pytest.raises(UnavailableError, match=r"no answer within|timed out"):
        send(options, f"prometheus+{partner.origin}")


def test_a_slow_server_is_waited_for(partner, options):
    partner.behave = slowly(1, answer(200))

    assert send(options, f"prometheus+{partner.origin}").delivered == 1


@pytest.mark.parametrize("location", ["http://127.0.0.2:1/", "/again"])
def test_a_redirect_is_not_followed_with_the_password(partner, options, location):
    partner.behave = answer(307, Location=location)

    with pytest.raises(RejectedError, match="answered 307 a redirect, which is not followed"):
        send(options, f"prometheus+{partner.origin.replace('//', '//user:pass-phrase@')}")

    assert len(partner.requests) == 1


def test_tls_is_checked_against_the_authorities(tmp_path, options, monkeypatch):
    from http_partners import HttpPartner  # noqa: PLC0415  with a certificate of this test

    authority = Authority()
    pair = authority.issue("localhost")
    (tmp_path / "server.pem").write_bytes(pair.key + pair.certificate)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    with HttpPartner(tmp_path / "server.pem") as partner:
        name = f"prometheus+https://localhost:{partner.port}"
        with pytest.raises(RejectedError, match=r"certificate|self-signed"):
            send(options, name)
        assert partner.requests == []

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert send(options, name).delivered == 1
