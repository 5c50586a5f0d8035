"""``python -m katib_callbacks.cli``: the command where its script is not on the path."""

import sys

from katib_callbacks.cli import main

sys.exit(main())
