"""StatusServer: where Kubeflow Trainer wants to hear of a TrainJob, as it says in every pod of the job."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.addresses import URL, split_url
from katib_callbacks.net.masking import MASK
from katib_callbacks.net.tls import client_context, read_token
from katib_callbacks.settings import Runtime

if TYPE_CHECKING:
    from katib_callbacks.net.http import HTTPRequest


class Answer(NamedTuple):
    """Result of a request; ``status`` is None without an answer, and ``is_local`` faults heal by rotation soon."""

    status: int | None
    reason: str
    is_redirect: bool = False
    is_local: bool = False


@dataclass(frozen=True)
class StatusServer:
    """One TrainJob's address at the status server; pickles, and holds no secret.

    The files are read anew for every request: Kubernetes replaces tokens and authorities while pods run.
    """

    url: URL
    ca_path: str | None = None
    token_path: str | None = None

    def post(self, request: "HTTPRequest", body: bytes) -> Answer:
        """Send a status, blocking; raises nothing that the network, the server or the files can cause."""
        from katib_callbacks.net.http import ExchangeError, UntrustedServerError  # noqa: PLC0415  where something is sent

        headers, token = {"Content-Type": "application/json"}, MASK
        try:
            if self.token_path is not None:
                token = read_token(settings.TRAINER_SERVER_TOKEN, self.token_path)
                headers["Authorization"] = f"Bearer {token}"
            context = client_context(settings.TRAINER_SERVER_CA_CERT, self.ca_path) if self.url.is_tls else None
            answer = request.send("POST", headers=headers, body=body, context=context)
        except (ConfigurationError, ExchangeError) as error:
            return Answer(None, str(error), is_local=isinstance(error, ConfigurationError | UntrustedServerError))
        said = "" if answer.is_success else answer.said(lambda text: text.replace(token, MASK))
        return Answer(answer.status, said, answer.is_redirect)


def resolve_status_server(runtime: Runtime) -> StatusServer | None:
    """Read the variables that Kubeflow Trainer injects; None where this is no TrainJob that shows its status."""
    text = runtime.variable(settings.TRAINER_SERVER_URL)
    if text is None:
        return None
    try:
        url = split_url(text)
    except ValueError as error:  # the URL is not quoted: it may hold a user and a password
        raise ConfigurationError(
            f"{settings.TRAINER_SERVER_URL} must be a URL such as https://kubeflow-trainer-controller-manager.kubeflow"
            "-system.svc:10443/apis/trainer.kubeflow.org/v1alpha1/namespaces/NAMESPACE/trainjobs/NAME/status, but "
            f"{error}"
        ) from error
    token_path = runtime.variable(settings.TRAINER_SERVER_TOKEN)
    is_insecure_allowed = settings.flag("allow_insecure_token", None, settings.ALLOW_INSECURE_TOKEN, runtime)
    if token_path is not None and not url.is_tls and not is_insecure_allowed:
        raise ConfigurationError(
            f"{settings.TRAINER_SERVER_URL} is plain http: the token of {settings.TRAINER_SERVER_TOKEN} would travel "
            f"without TLS; use https, or set {settings.ALLOW_INSECURE_TOKEN}"
        )
    return StatusServer(url, runtime.variable(settings.TRAINER_SERVER_CA_CERT), token_path)
