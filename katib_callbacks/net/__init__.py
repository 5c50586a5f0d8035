"""The needs of every client: HTTP with one deadline, TLS, tokens, addresses."""
