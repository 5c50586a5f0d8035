"""Who is let in: the holder of the token, by a name of this machine, over TLS; and what keeps others from the token."""

import json
import ssl
import stat
import urllib.error
import urllib.request
from datetime import datetime, timezone
from functools import partial

import grpc
import pytest
from api_servers import EXPERIMENTS

from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire.client import DBManagerStub


@pytest.mark.parametrize("shown", [None, "Bearer guessed", "Basic Z3Vlc3NlZA=="])
def test_others_get_401(shared, shown):
    with shared.request("GET", EXPERIMENTS, headers={"Authorization": shown or ""}) as answer:
        status = json.loads(answer.read())

    assert answer.status == 401
    assert (status["kind"], status["reason"], status["code"]) == ("Status", "Unauthorized", 401)


def test_a_page_of_another_site_is_not_answered(shared):
    with shared.request("GET", EXPERIMENTS, headers={"Host": "rebound.example"}) as answer:
        status = json.loads(answer.read())
    assert (answer.status, status["reason"]) == (403, "Forbidden")

    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    with shared.request("OPTIONS", EXPERIMENTS, headers=preflight) as answer:
        answer.read()
        assert not [name for name in dict(answer.getheaders()) if name.lower().startswith("access-control")]


def test_credentials_are_for_this_user_alone(shared):
    folder = shared.home / ".api-server"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (folder / "token", folder / "server.pem", shared.kubeconfig):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_metrics_are_read_without_a_token_and_neither_written_nor_deleted(shared):
    rows = [MetricLog("loss", 1.0, datetime.now(timezone.utc))]
    with grpc.insecure_channel(shared.db_manager) as channel:
        stub = DBManagerStub(channel)
        for write in (partial(stub.report, "trial", rows), partial(stub.delete, "trial")):
            with pytest.raises(grpc.RpcError) as refusal:
                write(timeout_s=120)
            assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert stub.get("trial", timeout_s=120) == []


def test_the_certificate_is_the_kubeconfigs_and_no_other(shared):
    with pytest.raises(urllib.error.URLError) as failure:
        urllib.request.urlopen(  # noqa: S310  https, as the server says
            shared.url, context=ssl.create_default_context(), timeout=60
        )
    assert isinstance(failure.value.reason, ssl.SSLCertVerificationError)
