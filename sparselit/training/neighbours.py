"""What stands beside a sparsifier: strategies, other sparsifiers, and callbacks that write weights themselves.

Averages are held to the budget; what cannot be is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor

from sparselit.errors import SparselitError
from sparselit.sparsity.budget import Budget

#: Callbacks whose weights cannot be held to a budget, and what to use instead.
REFUSED: dict[type[Callback], str] = {
    StochasticWeightAveraging: "it puts an average into the model after the last checkpoint; use WeightAveraging or "
    "EMAWeightAveraging, whose average keeps the budget",
    ModelPruning: "it prunes the same weights by a parametrisation of its own; leave one of the two out",
}


def refuse_sharded(trainer: Trainer, sparsifier: str) -> None:
    """Refuse strategies that split weights over devices.

    Args:
        trainer: its strategy is looked at.
        sparsifier: name of the sparsity callback, for the message.

    Raises:
        SparselitError: names the strategy.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise SparselitError(
            f"{sparsifier} needs whole weights on every device: use a single device or strategy: ddp, "
            f"not {type(strategy).__name__}"
        )


def refuse_shared(one: tuple[str, Sequence[Budget]], other: tuple[str, Sequence[Budget]]) -> None:
    """Refuse two sparsifiers of one tensor.

    Args:
        one: name and plan of a sparsifier.
        other: name and plan of another.

    Raises:
        SparselitError: names both and the tensor.
    """
    shared = {budget.name for budget in one[1]} & {budget.name for budget in other[1]}
    if shared:
        raise SparselitError(
            f"{one[0]} and {other[0]} both sparsify {min(shared)}: give one of them the rule that keeps it dense "
            "(density: null)"
        )


def refuse_rewriters(trainer: Trainer, sparsifier: str, goes_back: bool = False) -> None:
    """Refuse callbacks that would leave a model of another density than the configured one.

    Args:
        trainer: its callbacks are looked at.
        sparsifier: name of the sparsity callback, for the message.
        goes_back: whether it brings earlier weights back, which an average does not follow.

    Raises:
        SparselitError: names the callback.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise SparselitError(f"{type(callback).__name__} beside {sparsifier}: {reason}")
        if goes_back and isinstance(callback, WeightAveraging):
            raise SparselitError(
                f"{type(callback).__name__} beside {sparsifier}: it goes back to earlier weights, which an average "
                "does not; use AnnealedSparsity"
            )


def averages_of(trainer: Trainer) -> list[WeightAveraging]:
    """The averages that a run takes of its weights."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, WeightAveraging)]


def averages_first(trainer: Trainer) -> None:
    """Let averages be taken before any other callback looks at them; without one the order stays as it is."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if averages := averages_of(trainer):  # a new list: Lightning may be walking through the old one
        trainer.callbacks = [*averages, *(c for c in callbacks if c not in averages)]  # type: ignore[attr-defined]


@torch.no_grad()
def restrict_(averages: Sequence[WeightAveraging], tensors: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> None:
    """Give every average the living entries of the model in training, so that it has the same budget at any moment.

    An entry that dies is forgotten; one that the average has not met yet starts at the model's own value.

    Args:
        averages: changed in place.
        tensors: the sparsified parameters by name.
        live: masks of their living entries.
    """
    for model in [found._average_model for found in averages if found._average_model is not None]:
        for name, weight in tensors.items():
            average = model.module.get_parameter(name)
            own = torch.where(average == 0, weight.detach().to(average), average)
            average.copy_(own.masked_fill(~live[name].to(average.device), 0.0))


@contextmanager
def averaged(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """The module with the weights that a checkpoint holds and validation sees: the average, where one is taken.

    Args:
        trainer: its callbacks may average the weights.
        module: the module that is trained; it has its own weights again afterwards.
    """
    with ExitStack() as undo:
        for found in averages_of(trainer):
            if found._average_model is not None:
                found._swap_models(module)
                undo.callback(found._swap_models, module)
        yield
