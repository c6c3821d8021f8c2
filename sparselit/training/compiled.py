"""``compile: true``: the forward pass goes through ``torch.compile`` while a model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sparselit.errors import SparselitError, suggestion

#: Arguments of ``torch.compile`` that a mapping under ``compile:`` may hold.
OPTIONS = ("backend", "mode", "dynamic", "fullgraph", "options")


class Compiled(Callback):
    """Compiles what the module's steps call as ``self(...)``, in place: parameters keep their names.

    Searches run the transformer inside the module, which stays as it is.

    Args:
        options: arguments of ``torch.compile``, of :data:`OPTIONS`.

    Raises:
        SparselitError: there is no such argument.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        for key in options:
            if key not in OPTIONS:
                raise SparselitError(f"compile: no argument {key!r}{suggestion(str(key), OPTIONS)}")
        self.options = dict(options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile, in every process that trains."""
        if stage == "fit":
            pl_module.compile(**self.options)
