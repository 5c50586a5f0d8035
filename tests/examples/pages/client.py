"""What blocks name that look at experiments."""

from katib_callbacks.local import LocalKatibClient

client = LocalKatibClient()
