"""The needs of every client: HTTP with one deadline, TLS, tokens, addresses; and the door of a web server."""
