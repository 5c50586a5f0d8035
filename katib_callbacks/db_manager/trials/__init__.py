"""The listener for trials: TLS, authentication, ownership and its audit log."""
