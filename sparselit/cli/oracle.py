"""The rule of a circuit's task: what is right, read off a prompt by the task's own class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselit.errors import SparselitError

if TYPE_CHECKING:
    from sparselit.circuits.loaded import Recorded
    from sparselit.circuits.use.prompts import Oracle
    from sparselit.data.task import Task


def task_of(circuit: Recorded) -> Task | None:
    """The task that a circuit's file names; None where no such class is loaded or its arguments do not fit.

    Only classes of the plug-ins are made: nothing is imported because a file names it.

    Args:
        circuit: what was read from the file.
    """
    from sparselit.cli.experiment.plugins import load_plugins
    from sparselit.cli.task_checks import subclasses
    from sparselit.data.task import Task

    load_plugins()
    record = circuit.circuit.task
    package, _, name = record.class_path.rpartition(".")
    for kind in subclasses(Task):
        if kind.__qualname__ == name and f"{kind.__module__}.".startswith(f"{package}."):
            try:
                return kind(**record.init_args)
            except (TypeError, AttributeError, SparselitError):
                return None
    return None


def oracle(circuit: Recorded) -> Oracle | None:
    """The rule ``solve`` of a circuit's task; None where the task has none or cannot be made.

    Args:
        circuit: what was read from the file.
    """
    from sparselit.data.task import Task

    task = task_of(circuit)
    return None if task is None or type(task).solve is Task.solve else task.solve
