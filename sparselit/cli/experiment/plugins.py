"""Loading the classes that YAML files name: the shipped plug-ins, then third-party ones by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from sparselit.errors import SparselitError

#: Packages whose public classes have short names in YAML. The core names them only by these strings.
SHIPPED = ("sparselit.tasks", "sparselit.callbacks")
#: Entry points of this group name modules that define further tasks, callbacks or modules.
GROUP = "sparselit.plugins"


def load_plugins() -> None:
    """Import every plug-in.

    Raises:
        SparselitError: a third-party plug-in cannot be imported; the message names it.
    """
    for name in SHIPPED:
        import_module(name)
    for entry_point in entry_points(group=GROUP):
        try:
            entry_point.load()
        except Exception as error:
            raise SparselitError(
                f"the plug-in {entry_point.name!r} ({entry_point.value}) cannot be loaded: {error}"
            ) from error
