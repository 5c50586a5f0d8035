"""A package, so that the folders below may each have a ``test_training.py``."""
