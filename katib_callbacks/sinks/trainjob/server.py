"""StatusServer: where Kubeflow Trainer wants to hear of a TrainJob, as it says in every pod of the job."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

    from katib_callbacks.settings import Runtime

DEFAULT_PORTS = {"https": 443, "http": 80}

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(/[\x21-\x7e]*)?", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")
_MAX_PORT = 65_535


@dataclass(frozen=True)
class StatusServer:
    """One TrainJob's address at the status server; pickles, and holds no secret.

    The files are read anew for every request: Kubernetes replaces tokens and authorities while pods run.

    Args:
        host: Its name or address.
        port: Its port.
        target: Path and query.
        is_tls: Whether it speaks HTTPS.
        ca_path: PEM file with the authorities that it is checked against; None for those of the system.
        token_path: File with the bearer token; None to send none.
    """

    host: str
    port: int
    target: str
    is_tls: bool
    ca_path: str | None = None
    token_path: str | None = None

    @property
    def url(self) -> str:
        """The address, for messages; of its query no more than that there is one."""
        path, question, _ = self.target.partition("?")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{path}{question and '?...'}"

    def authorization(self) -> dict[str, str]:
        """Return the header with the token as its file has it now.

        Raises:
            ConfigurationError: The file is missing, unreadable or holds no token.
        """
        if self.token_path is None:
            return {}
        token = _read(settings.TRAINER_SERVER_TOKEN, self.token_path).strip()
        if not _TOKEN.fullmatch(token):  # a message must not quote it
            raise ConfigurationError(
                f"{settings.TRAINER_SERVER_TOKEN}: {self.token_path} holds no token: one line of printable ASCII"
            )
        return {"Authorization": f"Bearer {token}"}

    def ssl_context(self) -> "ssl.SSLContext | None":
        """Return what the server's certificate is checked with; None for plain HTTP.

        Raises:
            ConfigurationError: The file of the authorities is missing, unreadable or no PEM.
        """
        if not self.is_tls:
            return None
        import ssl  # noqa: PLC0415  only with TLS

        if self.ca_path is None:
            return ssl.create_default_context()
        text = _read(settings.TRAINER_SERVER_CA_CERT, self.ca_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # these authorities alone
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"{settings.TRAINER_SERVER_CA_CERT}: {self.ca_path} holds no certificate in PEM"
            ) from error
        return context


def resolve_status_server(runtime: "Runtime") -> StatusServer | None:
    """Read the variables that Kubeflow Trainer injects; None where this is no TrainJob that shows its status.

    Raises:
        ConfigurationError: The URL cannot be right, or the token would travel in the clear.
    """
    url = runtime.variable(settings.TRAINER_SERVER_URL)
    if url is None:
        return None
    match = _URL.fullmatch(url)
    port = int(match[3]) if match and match[3] else DEFAULT_PORTS[match[1]] if match else 0
    if match is None or not 1 <= port <= _MAX_PORT:  # not quoted: it may hold a user and a password
        raise ConfigurationError(
            f"{settings.TRAINER_SERVER_URL} must be a URL such as https://kubeflow-trainer-controller-manager.kubeflow:"
            "8082/apis/trainer.kubeflow.org/v1alpha1/namespaces/NAMESPACE/trainjobs/NAME/status"
        )
    token_path = runtime.variable(settings.TRAINER_SERVER_TOKEN)
    is_tls = match[1] == "https"
    is_insecure_allowed = settings.flag("allow_insecure_token", None, settings.ALLOW_INSECURE_TOKEN, runtime)
    if token_path is not None and not is_tls and not is_insecure_allowed:
        raise ConfigurationError(
            f"{settings.TRAINER_SERVER_URL} is plain http: the token of {settings.TRAINER_SERVER_TOKEN} would travel "
            f"without TLS; use https, or set {settings.ALLOW_INSECURE_TOKEN}"
        )
    ca_path = runtime.variable(settings.TRAINER_SERVER_CA_CERT)
    return StatusServer(match[2].strip("[]"), port, match[4] or "/", is_tls, ca_path, token_path)


def _read(source: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{source}: {path} cannot be read: {os.fsdecode(reason)}") from error
