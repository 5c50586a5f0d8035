"""What a test serves."""

from contextlib import ExitStack

import pytest
from served import serving


@pytest.fixture
def serve():
    """Return a function that serves an application until the test is over, and returns its address."""
    with ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(serving(app, **options))
