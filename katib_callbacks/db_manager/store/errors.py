"""How a store's failures differ for a client: each leaves the server as a status of its own."""

from katib_callbacks.errors import StoreError


class BusyError(StoreError):
    """There was no room or no turn for the call, and it has done nothing. RESOURCE_EXHAUSTED: try again."""


class UnstorableError(StoreError):
    """The database refuses these texts for good, as one with few characters does. INVALID_ARGUMENT."""


class ForeignTrialError(StoreError):
    """The trial belongs to another namespace than the caller's. PERMISSION_DENIED, on the trial listener alone."""


class TooLargeError(StoreError):
    """The reply would be larger than a limit of this server. RESOURCE_EXHAUSTED, and trying again does not help."""
