"""Who a caller of the trial listener is, and which trials it may report for.

``identity`` is what every way to authenticate answers: a grant, or why there is none. ``token_file`` knows tokens from
a file, ``service_accounts`` Kubernetes' projected ones, ``certificates`` the names in a client's certificate.
"""

from katib_callbacks.db_manager.authentication.grant import (
    Grant,
    IssuerUnavailableError,
    RefusedError,
    TokenAuthenticator,
)

__all__ = ["Grant", "IssuerUnavailableError", "RefusedError", "TokenAuthenticator"]
