"""What all frameworks are put through."""

from frameworks.scenarios.autolog import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.laptop import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.options import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.patches import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.progress import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.restoring import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.training import *  # noqa: F403  pytest finds them here
from frameworks.scenarios.whose_number import *  # noqa: F403  pytest finds them here
