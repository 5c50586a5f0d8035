"""The keys of a token issuer (OpenID Connect Discovery 1.0), fetched and kept."""
