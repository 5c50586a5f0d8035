"""The answer of every way to authenticate: a grant, or why there is none."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

NAMESPACE = "[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
"""The names that namespaces may have: DNS labels (RFC 1123)."""


class RefusedError(Exception):
    """A credential is not accepted.

    Its text is one sentence for the audit line, without any part of the credential: the caller is told less. With
    ``is_for_no_trial`` it is genuine but names no trial; another of its kind will not do, and the caller is told so.
    """

    def __init__(self, message: str, *, is_for_no_trial: bool = False) -> None:
        super().__init__(message)
        self.is_for_no_trial = is_for_no_trial


class IssuerUnavailableError(RefusedError):
    """A credential could not be judged now. Answered UNAVAILABLE, so that clients try again."""


@dataclass(frozen=True)
class Grant:
    """A caller's identity, as audit lines have it, and the trials that it may report for.

    Names and patterns are kept apart: what a caller could choose itself, as a Kubernetes token's audience, is a name,
    so that a trial called ``*`` opens only itself. Patterns (``fnmatch``, of the whole name) are an operator's.
    ``namespace`` is None if the credential does not say.
    """

    caller: str
    trial_names: frozenset[str] = frozenset()
    trial_patterns: tuple[str, ...] = ()
    namespace: str | None = None

    def covers(self, trial_name: str) -> bool:
        """Return whether the caller may report for a trial of this name."""
        return trial_name in self.trial_names or any(
            fnmatchcase(trial_name, pattern) for pattern in self.trial_patterns
        )
