"""The callbacks of a command: ours beside those of the user, in order, and what cannot stand there refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Checkpoint,
    LearningRateFinder,
    ModelPruning,
    ProgressBar,
)

from sparselit.cli.experiment.interruption import Interruption
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.training.run_checkpoint import RunCheckpoint

#: Callbacks that look for a setting before the first step of a run, and only then.
FINDERS = (BatchSizeFinder, LearningRateFinder)
#: Classes of Lightning that do nothing by themselves.
_BASES = (Callback, Checkpoint, ProgressBar, BaseFinetuning, BasePredictionWriter)


def refuse_useless(callbacks: Iterable[Callback], command: str) -> None:
    """Refuse what would do nothing, and two callbacks whose states a checkpoint could not tell apart.

    Args:
        callbacks: those that the user has configured.
        command: the subcommand.

    Raises:
        SparselitError: names the class.
    """
    seen: set[str] = set()
    for callback in callbacks:
        name = type(callback).__name__
        if type(callback) in _BASES:
            raise SparselitError(f"trainer.callbacks: {name} is a base that does nothing by itself; name a subclass")
        if command == "predict" and isinstance(callback, BasePredictionWriter):
            raise SparselitError(f"trainer.callbacks: {name}: `sparselit predict` prints answers and writes no files")
        if callback.state_key in seen and type(callback).state_dict is not Callback.state_dict:
            raise SparselitError(
                f"trainer.callbacks: two {name} with the same settings share one state in a checkpoint; give them "
                "different ones, or leave one out"
            )
        seen.add(callback.state_key)


def refuse_pruning(callbacks: Iterable[Callback], model: LightningModule) -> None:
    """Refuse Lightning's pruning of our model: it puts masks in front of ``forward``, which attention goes around.

    Args:
        callbacks: of the trainer.
        model: the module that is trained.

    Raises:
        SparselitError: says what prunes it.
    """
    if isinstance(model, SparseTransformer) and any(isinstance(callback, ModelPruning) for callback in callbacks):
        raise SparselitError(
            f"ModelPruning does not reach all weights of {type(model).__name__}; use the key sparsity:, for example "
            "OneShotPruning"
        )


def of_command(callbacks: Sequence[Callback], command: str, resumes: bool) -> list[Callback]:
    """The user's callbacks that act in a command.

    Args:
        callbacks: those that the user has configured.
        command: nothing but ``fit`` writes checkpoints or looks for settings.
        resumes: a run that goes on has found its settings.
    """
    left = [
        callback for callback in callbacks if not (resumes or command != "fit") or not isinstance(callback, FINDERS)
    ]
    return [callback for callback in left if command == "fit" or not isinstance(callback, Checkpoint)]


def put_last(trainer: Trainer) -> None:
    """Let the run's checkpoint come after all others, so that it holds what they have noted in the step.

    Args:
        trainer: its callbacks are put in order.
    """
    last = (RunCheckpoint, Interruption)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.sort(key=lambda callback: last.index(type(callback)) if type(callback) in last else -1)


@contextmanager
def without_finders(trainer: Trainer) -> Iterator[None]:
    """No search for settings inside a ``with`` block, as when a trained model is measured.

    Args:
        trainer: has its callbacks again afterwards.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [callback for callback in callbacks if not isinstance(callback, FINDERS)]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
