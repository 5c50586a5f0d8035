"""Checks of Kubeflow Trainer's status server, where the sink ``trainjob`` shows how far a TrainJob is."""

from collections.abc import Iterator

from katib_callbacks import settings
from katib_callbacks.cli.doctor.finding import NOTE, OK, PROBLEM, Checks, Finding, Surroundings
from katib_callbacks.cli.doctor.network import TIMEOUT_S, about_certificate, about_token, handshake
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.tls import client_context, read_token
from katib_callbacks.sinks.auto import DISABLED, NAMED, TRAINJOB

_NO_STATUS = b"not a status"
"""A status would replace the job's. This is read when the token is accepted, and then refused."""

_UNREADABLE = {400, 422}
_BY_STATUS = {
    401: "see that the token's audience names this TrainJob, and that it was made for its namespace",
    403: "see that the token's audience names this TrainJob, and that it was made for its namespace",
    404: f"see that {settings.TRAINER_SERVER_URL} names this TrainJob, and that it has not been deleted",
}


def check_status_server(here: Surroundings) -> Iterator[Finding]:
    """Post what is no status, which tells address, TLS and token without changing anything."""
    from katib_callbacks.net.http import HTTPRequest  # noqa: PLC0415  in a TrainJob alone
    from katib_callbacks.sinks.trainjob.server import resolve_status_server  # noqa: PLC0415  as above

    is_named = any(each.reason == NAMED for each in here.where.chosen)
    if here.where.nothing == DISABLED or (is_named and TRAINJOB not in here.where.sinks):
        return
    try:
        server = resolve_status_server(here.runtime)
        if server is None:
            return
        context = client_context(settings.TRAINER_SERVER_CA_CERT, server.ca_path) if server.url.is_tls else None
        if server.token_path is None:
            detail = f"{settings.TRAINER_SERVER_TOKEN} is not set"
            yield Finding("status", NOTE, detail, "Kubeflow Trainer sets it, and its server refuses others")
        else:
            token = read_token(settings.TRAINER_SERVER_TOKEN, server.token_path)
            yield about_token("status", server.token_path, token, here.runtime)
    except ConfigurationError as error:
        yield Finding("status", PROBLEM, str(error), "correct the variable or the file")
        return
    answer = server.post(HTTPRequest(server.url, TIMEOUT_S), _NO_STATUS)
    if answer.status is None:
        advice = (
            f"see that Kubeflow Trainer's manager runs, and that {settings.TRAINER_SERVER_CA_CERT} has its authority"
        )
        yield Finding("status", PROBLEM, f"no answer from {server.url}: {answer.reason}", advice)
        return
    if context is not None:
        certificate = handshake(context, server.url.host, server.url.port)
        yield about_certificate("status", certificate or {}, here.runtime)
    if answer.status in _UNREADABLE:
        yield Finding("status", OK, f"{server.url} accepts this process")
    else:
        detail = f"{server.url} answers {answer.status} {answer.reason}".strip()
        yield Finding("status", PROBLEM, detail, _BY_STATUS.get(answer.status, "look at the log of Kubeflow Trainer"))


CHECKS: Checks = (check_status_server,)
