"""The destination ``katib``: a Katib DB manager or the embedded one, each row once."""
