"""What escapes from Lightning, torch or the parser before the first step, in one line; bugs of ours may trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from sparselit.errors import SparselitError, disk_fault

#: Set to anything, it shows the whole traceback of what would else be one line.
TRACEBACK = "SPARSELIT_TRACEBACK"
#: Packages whose errors are answers to what the user has configured.
_FOREIGN = {"lightning", "lightning_fabric", "lightning_utilities", "torch", "torchmetrics", "jsonargparse", "fsspec"}
_FOREIGN |= {"tensorboard", "wandb", "mlflow", "rich", "tqdm", "psutil", "yaml"}
#: Modules whose errors are about compiling.
_COMPILERS = ("torch._dynamo", "torch._inductor")
#: The modules of Lightning that hand the parts of a checkpoint to those that they belong to.
_RESTORING = {
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.utilities.migration.utils",
}
_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc")


def explained(error: Exception, training: bool, what: str = "") -> SparselitError | None:
    """One line for an error that is the answer to a setting.

    Args:
        error: what was raised.
        training: whether a step was made; then only a lack of memory and a refusal of the disk are explained.
        what: the class that was being made, if one was.

    Returns:
        The error to raise in its place; None where it is a bug, whose traceback is to be seen.
    """
    if isinstance(error, SparselitError) or os.environ.get(TRACEBACK):
        return None
    text = sentence(error)
    if isinstance(error, MemoryError) or any(part in str(error) for part in _NO_MEMORY):
        return SparselitError("out of memory: make the model (d_model, n_layers) or data.batch_size smaller")
    if (refusal := disk_fault(error)) is not None:
        return SparselitError(refusal)
    if isinstance(error, OSError) and error.filename and not training:
        return SparselitError(f"{error.filename}: {error.strerror}")
    if training:
        return None
    if not _RESTORING.isdisjoint(_modules(error)):
        return SparselitError(
            f"the checkpoint cannot be restored: {type(error).__name__}: {text}; it is damaged, or of another version"
            f" or other settings\n({TRACEBACK}=1 shows where)"
        )
    if not _is_foreign(error):
        return None
    if type(error).__module__.startswith(_COMPILERS):
        text = text.partition(" Set TORCH")[0]
        return SparselitError(f"compile: {text}; compile: false goes without ({TRACEBACK}=1 shows where)")
    where = f"{what}: " if what else ""
    return SparselitError(f"{where}{type(error).__name__}: {text} ({TRACEBACK}=1 shows where)")


def sentence(error: Exception) -> str:
    """The first sentence of a message, without its back quotes."""
    text = " ".join(str(error).replace("`", "").split()).partition(". ")[0]
    return text if len(text) <= 300 else f"{text[:297]}..."


def _is_foreign(error: Exception) -> bool:
    if isinstance(error, RuntimeError | OverflowError) and not isinstance(error, RecursionError):
        return True  # of torch's functions, which have no frame; ours raise none
    for name in _modules(error):
        module = name.partition(".")[0]
        if module not in sys.stdlib_module_names and module != "numpy":
            return module in _FOREIGN
    return False


def _modules(error: Exception) -> Iterator[str]:
    """The modules of the frames that an error went through, the innermost first."""
    names = []
    frame = error.__traceback__
    while frame is not None:
        names.append(str(frame.tb_frame.f_globals.get("__name__", "")))
        frame = frame.tb_next
    return reversed(names)
