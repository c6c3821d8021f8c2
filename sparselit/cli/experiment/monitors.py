"""Names that callbacks monitor, checked before anything is trained."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sparselit.errors import SparselitError, suggestion
from sparselit.modules import SparseTransformer
from sparselit.training.discovery import Discovery
from sparselit.training.sparsifier import Sparsifier

#: Packages whose callbacks log nothing but what :func:`logged_names` knows, and are the only ones then.
_KNOWN = ("sparselit", "lightning")
#: What ``SparsityMonitor`` logs of each tensor and rule begins with.
_OF_TENSORS = tuple(
    f"{name}/"
    for name in (
        "density",
        "dead_rows",
        "dead_columns",
        "threshold",
        "churn",
        "ever_live",
        "rule_density",
        "rule_target",
    )
)


def refuse_monitors(trainer: Trainer, model: LightningModule, data: object, *schedulers: object) -> None:
    """Refuse to monitor a name that nothing logs, where all that is logged is known.

    Args:
        trainer: its callbacks are looked at.
        model: what is trained; only of :class:`SparseTransformer` itself is it known what it logs.
        data: the task.
        schedulers: settings of learning rates that may monitor something as well.

    Raises:
        SparselitError: names the callback and the name.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    foreign = [c for c in callbacks if type(c).__module__.partition(".")[0] not in _KNOWN]
    if foreign or type(model) is not SparseTransformer:
        return
    names = logged_names(callbacks, model, data)
    measured = any(type(callback).__name__ == "SparsityMonitor" for callback in callbacks)
    for callback in [*callbacks, *schedulers]:
        monitor = getattr(callback, "monitor", None)
        if not isinstance(monitor, str) or monitor in names or (measured and monitor.startswith(_OF_TENSORS)):
            continue
        if getattr(callback, "strict", True):
            raise SparselitError(
                f"{type(callback).__name__}.monitor: nothing in this run logs {monitor!r}{suggestion(monitor, names)}"
            )


def logged_names(callbacks: list[Any], model: LightningModule, data: object) -> list[str]:
    """What a run of our own module and callbacks logs on the way, sorted.

    Args:
        callbacks: of the trainer.
        model: what is trained.
        data: its strata, texts and behaviours are among the names.
    """
    names = {"train/loss", "train/accuracy", "train/lr", "val/loss"}
    names |= {f"val/{kind}" for kind in ("accuracy", "n")}
    strata = {*getattr(data, "strata", ())} - {"all"}
    names |= {f"val/{kind}/{stratum}" for kind in ("accuracy", "n") for stratum in strata}
    names |= {"val/nats_per_byte"} if getattr(data, "byte_counts", None) is not None else set()
    for callback in callbacks:
        if isinstance(callback, Sparsifier):
            names |= {"density/total", "density/target"}
        elif isinstance(callback, Discovery):
            names |= {f"circuit/{name}" for name in callback.logged}
    return sorted(names)


def is_missing_monitor(error: RuntimeError) -> bool:
    """Whether Lightning ended a run for want of a monitored value."""
    return str(error).startswith("Early stopping conditioned on metric")
