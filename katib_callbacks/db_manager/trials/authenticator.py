"""The callers that the trial listener lets in, and the trials that each may report for."""

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from katib_callbacks.db_manager.authentication.certificates import CertificateNames
from katib_callbacks.db_manager.authentication.grant import Grant, IssuerUnavailableError, RefusedError
from katib_callbacks.db_manager.authentication.tls_files import TLSFiles
from katib_callbacks.db_manager.authentication.token_file import TokenFile
from katib_callbacks.db_manager.listening import check_address
from katib_callbacks.db_manager.trials.listener import TrialListener

if TYPE_CHECKING:
    from katib_callbacks.db_manager.authentication.kubernetes_tokens import ServiceAccountTokens


class Authenticator:
    """Decides which callers a trial listener lets in, by its files, which it opens and checks. Thread-safe."""

    def __init__(self, listener: TrialListener) -> None:
        check_address(listener.listen_address)
        self.listener = listener
        self.files = TLSFiles(listener.tls_cert, listener.tls_key, listener.client_ca)
        self._names = None if listener.certificate_name is None else CertificateNames(listener.certificate_name)
        self._file = None if listener.token_file is None else TokenFile(listener.token_file)
        self._issuer = None if listener.oidc_issuer is None else _service_accounts(listener, listener.oidc_issuer)
        self._tokens = [way for way in (self._file, self._issuer) if way is not None]

    @property
    def wants(self) -> str:
        """The credentials that a caller without one is asked for."""
        ways = ["a bearer token"] if self._tokens else []
        return " or ".join([*ways, "a certificate of a trial"] if self._names else ways)

    def authenticate(self, token: str | None, certificate: bytes | None) -> Grant | None:
        """Return what a token, or a certificate that TLS has accepted, grants; None if there is neither.

        RefusedError where they grant nothing.
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
        """End the thread that fetches an issuer's keys. May be called twice."""
        if self._issuer is not None:
            self._issuer.close()

    def _judge(self, token: str) -> Grant:
        refusals = []
        for way in self._tokens:
            try:
                return way.authenticate(token)
            except RefusedError as error:  # noqa: PERF203  two at most
                refusals.append(error)
        unsure = [error for error in refusals if isinstance(error, IssuerUnavailableError)]
        raise (unsure or refusals)[-1]


def _service_accounts(listener: TrialListener, issuer: str) -> "ServiceAccountTokens":
    from katib_callbacks.db_manager.authentication.kubernetes_tokens import (  # noqa: PLC0415  needs the extra
        DEFAULT_AUDIENCE,
        ServiceAccountTokens,
    )

    return ServiceAccountTokens(
        issuer,
        audience=DEFAULT_AUDIENCE if listener.oidc_audience is None else listener.oidc_audience,
        ca=listener.oidc_ca,
        token_path=listener.oidc_token,
    )
