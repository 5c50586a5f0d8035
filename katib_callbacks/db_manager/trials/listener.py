"""What the trial listener is told: its address, its TLS files, and whom it lets in."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike

from katib_callbacks.db_manager.authentication import (
    Grant,
    IssuerUnavailableError,
    RefusedError,
    TokenAuthenticator,
)
from katib_callbacks.db_manager.authentication.certificates import CertificateNames
from katib_callbacks.db_manager.authentication.tls_files import TLSFiles
from katib_callbacks.db_manager.authentication.token_file import TokenFile
from katib_callbacks.db_manager.listening import check_address
from katib_callbacks.errors import ConfigurationError

MAX_CALLS = 256
"""Calls of trials worked on or waiting at once; beside those of the other listener."""


@dataclass(frozen=True)
class TrialListener:
    """A second listener of the DB manager, for trials: TLS, authenticated, each to its own rows.

    At least one of ``certificate_name``, ``token_file`` and ``oidc_issuer`` must be given: the ways to authenticate.
    Where several are, a call that carries a token is judged by its token, any other one by its certificate.

    Args:
        listen_address: ``host:port``, an IPv6 host in brackets; port 0 takes a free one.
        tls_cert: PEM file with the server's certificate chain.
        tls_key: PEM file with its private key, unencrypted.
        client_ca: PEM file with the authorities of clients' certificates. With it every client must show one.
        certificate_name: What names of clients' certificates look like, with ``{trial}`` and perhaps ``{namespace}``.
        token_file: JSON file with tokens, see :mod:`katib_callbacks.db_manager.authentication.token_file`.
        oidc_issuer: URL of the issuer of Kubernetes' service account tokens.
        oidc_audience: What the audience of such a token looks like, with ``{namespace}`` and ``{trial}``; None for the
            default.
        oidc_ca: PEM file with the authorities that the issuer's certificate is checked against; None for the system's.
        oidc_token: File with a bearer token that the issuer wants to see before it shows its keys.
        namespaces: Patterns of the namespaces whose trials may report at all. Unless one is ``*``, a credential that
            names no namespace is refused.
        max_calls: How many calls of trials may be worked on or wait at once.
    """

    listen_address: str
    tls_cert: str | PathLike[str]
    tls_key: str | PathLike[str]
    client_ca: str | PathLike[str] | None = None
    certificate_name: str | None = None
    token_file: str | PathLike[str] | None = None
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_ca: str | PathLike[str] | None = None
    oidc_token: str | PathLike[str] | None = None
    namespaces: tuple[str, ...] = ("*",)
    max_calls: int = MAX_CALLS

    def __post_init__(self) -> None:
        if self.certificate_name is None and self.token_file is None and self.oidc_issuer is None:
            raise ConfigurationError(
                "the trial listener has no way to authenticate: name a token file, an issuer of tokens, or a template "
                "of certificates' names"
            )
        if self.certificate_name is not None and self.client_ca is None:
            raise ConfigurationError("certificate names need client_ca, the authorities that vouch for them")
        if self.oidc_issuer is None and not self.oidc_audience is self.oidc_ca is self.oidc_token is None:
            raise ConfigurationError("an audience, a CA or a token of an issuer is given without the issuer")
        if not self.namespaces or isinstance(self.namespaces, str):
            raise ConfigurationError("namespaces must be patterns such as ('team-*',); leave it out for all")
        if self.max_calls < 1:
            raise ConfigurationError(f"max_calls of the trial listener must be positive, not {self.max_calls}")


class Authenticator:
    """Whom a trial listener lets in: its files, opened and checked. Thread-safe.

    Args:
        listener: What it is told.

    Raises:
        ConfigurationError: A file or a template cannot be right, or the address cannot be had.
        MissingDependencyError: The extra ``auth`` is not installed and needed.
    """

    def __init__(self, listener: TrialListener) -> None:
        check_address(listener.listen_address)
        self.listener = listener
        self.files = TLSFiles(listener.tls_cert, listener.tls_key, listener.client_ca)
        self._names = None if listener.certificate_name is None else CertificateNames(listener.certificate_name)
        self._tokens: list[TokenAuthenticator] = []
        if listener.token_file is not None:
            self._tokens.append(TokenFile(listener.token_file))
        if listener.oidc_issuer is not None:
            self._tokens.append(_service_accounts(listener))

    @property
    def wants(self) -> str:
        """What a caller without a credential is told to bring."""
        ways = ["a bearer token"] if self._tokens else []
        return " or ".join([*ways, "a certificate of a trial"] if self._names else ways)

    def authenticate(self, token: str | None, certificate: bytes | None) -> Grant | None:
        """Return what a caller's credentials grant; None if it has none.

        Args:
            token: Its bearer token.
            certificate: Its certificate in PEM, which TLS has accepted.

        Raises:
            RefusedError: They grant nothing.
        """
        if token is not None and self._tokens:
            return self._judge(token)
        if certificate is not None and self._names is not None:
            return self._names.authenticate(certificate)
        return None

    def authorize(self, grant: Grant, trial_name: str) -> str | None:
        """Return why a caller may not report for a trial; None if it may."""
        if not grant.covers(trial_name):
            return "the credential is for other trials"
        patterns = self.listener.namespaces
        if "*" not in patterns and not any(fnmatchcase(grant.namespace or "", pattern) for pattern in patterns):
            return "its namespace may not report" if grant.namespace else "the credential names no namespace"
        return None

    def close(self) -> None:
        """Give up what the ways to authenticate hold. May be called twice."""
        for way in self._tokens:
            way.close()

    def _judge(self, token: str) -> Grant:
        refusals = []
        for way in self._tokens:
            try:
                return way.authenticate(token)
            except RefusedError as error:  # noqa: PERF203  two at most
                refusals.append(error)
        unsure = [error for error in refusals if isinstance(error, IssuerUnavailableError)]
        raise (unsure or refusals)[-1]


def _service_accounts(listener: TrialListener) -> TokenAuthenticator:
    from katib_callbacks.db_manager.authentication.kubernetes_tokens import (  # noqa: PLC0415  needs the extra
        DEFAULT_AUDIENCE,
        ServiceAccountTokens,
    )

    authenticator: TokenAuthenticator = ServiceAccountTokens(
        str(listener.oidc_issuer),
        audience=DEFAULT_AUDIENCE if listener.oidc_audience is None else listener.oidc_audience,
        ca=listener.oidc_ca,
        token_path=listener.oidc_token,
    )
    return authenticator
