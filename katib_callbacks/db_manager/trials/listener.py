"""The options of the trial listener: its address, its TLS files, and the callers that it lets in."""

from dataclasses import dataclass
from os import PathLike

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
