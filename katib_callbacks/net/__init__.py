"""What every client needs: HTTP with one deadline, TLS, tokens, addresses."""
