"""The options of ``katib-callbacks db-manager`` for its trial listener."""

import argparse
from typing import TYPE_CHECKING

from katib_callbacks.errors import ConfigurationError

if TYPE_CHECKING:
    from katib_callbacks.db_manager import TrialListener

_OPTIONS = (
    ("--trial-tls-cert", "FILE", "the trial listener's certificate chain, PEM"),
    ("--trial-tls-key", "FILE", "its private key, PEM, unencrypted"),
    ("--trial-client-ca", "FILE", "authorities of clients' certificates, PEM; with it every client must show one"),
    (
        "--trial-certificate-name",
        "TEMPLATE",
        (
            "what names of clients' certificates look like, such as {trial}.{namespace}.katib-trial or "
            "spiffe://cluster.local/ns/{namespace}/katib-trial/{trial}; needs --trial-client-ca"
        ),
    ),
    ("--trial-token-file", "FILE", "tokens and the trials that each is for, JSON"),
    ("--trial-oidc-issuer", "URL", "issuer of Kubernetes' service account tokens"),
    (
        "--trial-oidc-audience",
        "TEMPLATE",
        "what the audience of such a token looks like (default: katib-trial:{namespace}/{trial})",
    ),
    ("--trial-oidc-ca", "FILE", "authorities of the issuer's certificate, PEM (default: the system's)"),
    ("--trial-oidc-token", "FILE", "a token that the issuer wants to see before it shows its keys"),
    ("--trial-namespaces", "PATTERNS", "namespaces that may report at all, separated by commas (default: all)"),
)


def add_trial_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, as a group of their own."""
    group = parser.add_argument_group(
        "trial listener",
        "A second address, for trials alone: TLS, each call authenticated by a token or a certificate, and each trial "
        "to its own rows. The files are read again when they change.",
    )
    group.add_argument(
        "--trial-listen-address", metavar="HOST:PORT", help="where to listen for trials (default: nowhere)"
    )
    for name, metavar, text in _OPTIONS:
        group.add_argument(name, metavar=metavar, help=text)
    group.add_argument(
        "--trial-max-calls",
        metavar="N",
        type=int,
        help="how many calls of trials may be worked on or wait, beside those of --max-calls (default: 256)",
    )


def trial_listener(arguments: argparse.Namespace) -> "TrialListener | None":
    """Return the trial listener that the options describe; None if there is to be none."""
    from katib_callbacks.db_manager import TrialListener  # noqa: PLC0415  needs the extra

    given = {name: value for name, value in vars(arguments).items() if name.startswith("trial_") and value is not None}
    if not given:
        return None
    for name in ("trial_listen_address", "trial_tls_cert", "trial_tls_key"):
        if name not in given:
            flags = ", ".join(_flag(other) for other in given)
            raise ConfigurationError(f"{flags}: a trial listener needs {_flag(name)}, too")
    if "trial_namespaces" in given:
        patterns = (pattern.strip() for pattern in str(given["trial_namespaces"]).split(","))
        given["trial_namespaces"] = tuple(pattern for pattern in patterns if pattern)
    return TrialListener(**{name.removeprefix("trial_"): value for name, value in given.items()})


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
