"""The embedded DB manager: Katib's gRPC API on a database of one's own, for laptops, tests and small clusters.

``server`` starts it, ``service`` answers Katib's calls, ``store`` has the rows, ``trials`` is the listener for trials,
``authentication`` knows its callers. Imports only wire, net, metrics, settings and errors.
"""

from katib_callbacks.errors import MissingDependencyError

try:
    import sqlalchemy
except ImportError as error:
    raise MissingDependencyError(
        'the DB manager keeps its rows through SQLAlchemy: pip install "katib-callbacks[db-manager]"'
    ) from error
if int(sqlalchemy.__version__.partition(".")[0]) < 2:  # noqa: PLR2004  the first with the API that the store uses
    raise MissingDependencyError(
        f"the DB manager needs SQLAlchemy 2, and {sqlalchemy.__version__} is installed: "
        'pip install "katib-callbacks[db-manager]"'
    )

from katib_callbacks.db_manager.server import DBManager
from katib_callbacks.db_manager.trials.listener import TrialListener

__all__ = ["DBManager", "TrialListener"]
