"""The pod around a trial, for ``report_metrics`` of Katib's own SDK: the file of the namespace, the DB manager's name.

Python imports the first module of this name when it starts. The SDK opens a file that only pods have, for the text of
an error, and has one fixed address; neither can be made here. So both are put right when the SDK is imported, if it
is. Nothing else is imported or changed, and the user's own ``sitecustomize`` runs as well.
"""

import os
import sys

TYPE_CHECKING = False  # of typing, whose import takes longer than all of this
if TYPE_CHECKING:
    from types import ModuleType

_TRIAL_NAME, _ADDRESS = "KATIB_TRIAL_NAME", "KATIB_DB_MANAGER_ADDRESS"  # as katib_callbacks.settings has them
_NAME = "sitecustomize"


def _set_address(module: object) -> None:
    if _ADDRESS in os.environ:
        vars(module)["DEFAULT_DB_MANAGER_ADDRESS"] = os.environ[_ADDRESS]


def _set_namespace(module: object) -> None:
    original = vars(module).get("get_current_k8s_namespace")
    if original is None:  # another release of the SDK
        return

    def get_current_k8s_namespace() -> object:
        try:
            return original()
        except FileNotFoundError:
            return "default"

    vars(module)["get_current_k8s_namespace"] = get_current_k8s_namespace


_ACTIONS = {"kubeflow.katib.constants.constants": _set_address, "kubeflow.katib.utils.utils": _set_namespace}


class _AfterImport:
    """A finder that acts on a module when it has been executed."""

    @staticmethod
    def find_spec(name: str, path: "list[str] | None" = None, _target: object = None) -> object:
        """Return the spec of a module that is awaited, with a loader that acts on it; None for any other."""
        if name not in _ACTIONS:
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415  only where the SDK is imported

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: "ModuleType") -> None:
                execute(module)
                _ACTIONS[name](module)

            vars(spec.loader)["exec_module"] = exec_module
        return spec


def _run_others() -> None:
    """Import the module of this name that this one hides, in its place."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib takes longer than all of this
    sys.path[:] = [entry for entry in sys.path if entry != here]
    ours = sys.modules.pop(_NAME)
    try:
        __import__(_NAME)
    except ImportError as error:
        if error.name != _NAME:
            raise
    finally:
        sys.modules.setdefault(_NAME, ours)  # where Python looks for it when this has run


if __name__ == _NAME:
    if _TRIAL_NAME in os.environ and _ADDRESS in os.environ:
        sys.meta_path.insert(0, _AfterImport)  # type: ignore[arg-type]  # typeshed wants a ModuleSpec of its own
    _run_others()
