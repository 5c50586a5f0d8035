"""A package, so that the folders below may each have a ``test_training.py``, and share ``scenarios``."""

import pytest

pytest.register_assert_rewrite("frameworks.progress", "frameworks.scenarios")
