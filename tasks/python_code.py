"""A language model of real Python that is on every machine already."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from sparselit.data.corpus.documents import Gathered, python_documents
from sparselit.data.task import Task
from sparselit.data.texts import Texts
from sparselit.errors import check_choice

from .python20 import ANSWERS, PYTHON20

#: Prompts of each of the twenty; a language model's forward pass is slow.
SIZES = {"pool": 1024, "discovery": 256, "selection": 512, "report": 1000}


class PythonCode(Texts):
    """Python source of the running interpreter, without a download.

    Left out, and counted in ``corpus.json``: tests, vendored packages, copies and near-copies, files above 200 kB,
    generated files and files of mostly digits; of each file the comment at its top where that speaks of rights.

    Args:
        source: ``stdlib`` for the standard library (about 8 MB), ``installed`` for it and the packages that this
            library depends on (sympy, networkx, numpy, torchmetrics, lightning; about 37 MB in all).
        behaviours: tasks whose circuits are sought, or ``python20``: twenty after the names in Gao et al. 2025.
        kwargs: arguments of :class:`~sparselit.data.texts.Texts`.
    """

    whole = ANSWERS  # one token each, also under a small vocabulary

    def __init__(
        self,
        source: Literal["stdlib", "installed"] = "stdlib",
        behaviours: list[Task] | Literal["python20"] = "python20",
        **kwargs: Any,
    ) -> None:
        super().__init__(behaviours=() if behaviours == "python20" else behaviours, **kwargs)
        check_choice("data.source", source, ("stdlib", "installed"))
        self.save_hyperparameters("source", logger=False)
        self._all_twenty = behaviours == "python20"

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks whose circuits are sought, by name."""
        if not self._all_twenty:
            return super().tasks
        return {name: task(**SIZES) for name, task in PYTHON20.items()}  # not in __init__: they have their own hparams

    def collection(self) -> Gathered:
        """The source files."""
        return python_documents(self.hparams["source"])
