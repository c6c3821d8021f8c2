"""What else writes weights: averages keep the budget, others are refused by name, and every miss is told."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from sparselit.callbacks import (
    AcdcSparsity,
    AnnealedSparsity,
    DynamicSparsity,
    GradualPruning,
    ProximalSparsity,
    RiglSparsity,
    SelfPacedSparsity,
    SemiStructuredSparsity,
    SnipSparsity,
    StaticSparsity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparselit.errors import SparselitError
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.sparsity import Schedule
from sparselit.training.promise import excess
from sparselit.training.run_checkpoint import AtomicCheckpointIO, RunCheckpoint

STEPS = 12


class Regression(LightningModule):
    """Two layers, ten batches an epoch, one of validation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 4)

    @property
    def seed(self) -> int:
        """A function of the step, so that a run can be continued anywhere."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(self.seed))
        return (self.second(torch.tanh(self.first(x))) - x[:, :4].sin()).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is measured."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(10))  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(range(1))  # type: ignore[arg-type]


def fit(tmp_path: Path, *callbacks: Callback, module: Any = None, ckpt_path: Any = None, **kwargs: Any) -> Regression:
    module = module or Regression()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"max_steps": STEPS, "val_check_interval": 3, "num_sanity_val_steps": 0, "accelerator": "cpu"} | kwargs
    saving = RunCheckpoint(every_n_steps=4, keep=100, dirpath=str(tmp_path / "checkpoints"))
    Trainer(**quiet, **settings, callbacks=[*callbacks, saving], plugins=[AtomicCheckpointIO()]).fit(
        module, ckpt_path=ckpt_path
    )
    return module


METHODS: dict[str, Any] = {
    "annealed": lambda: AnnealedSparsity(Schedule(to=0.1, end=0.8)),
    "annealed-masks": lambda: AnnealedSparsity(Schedule(to=0.1, end=0.8), moments="reset"),
    "static": lambda: StaticSparsity(0.2),
    "dynamic": lambda: DynamicSparsity(0.2, every_n_steps=5),
    "rigl": lambda: RiglSparsity(0.2, every_n_steps=5),
    "snip": lambda: SnipSparsity(0.2),
    "gradual": lambda: GradualPruning(Schedule(to=0.1, end=0.8), every_n_steps=2),
    "acdc": lambda: AcdcSparsity(0.2, begin=2, every_n_steps=3),
    "proximal": lambda: ProximalSparsity(Schedule(to=0.2, end=0.4)),
    "2:4": lambda: SemiStructuredSparsity(2, 4),
}
AVERAGES: dict[str, Any] = {
    "ema": lambda: EMAWeightAveraging(decay=0.9),
    "ema, every third step": lambda: EMAWeightAveraging(decay=0.9, update_every_n_steps=3),
    "ema, not at first": lambda: EMAWeightAveraging(decay=0.9, update_starting_at_step=5),
    "ema, once an epoch": lambda: EMAWeightAveraging(update_every_n_steps=0, update_starting_at_epoch=0),
    "ema, never": lambda: EMAWeightAveraging(update_starting_at_step=1000),
    "mean": WeightAveraging,
}


def assert_on_budget(tensors: Any, sparsifier: Any) -> None:
    """As many entries as the plan says; weights that have just grown are zero and may stay so without a gradient."""
    targets = sparsifier.targets(sparsifier.step)
    found = {name: int(tensors[name].count_nonzero()) for name in targets}
    assert found == targets or (type(sparsifier) is DynamicSparsity and excess(tensors, targets) is None)


class Exact(Callback):
    """What validation sees has the budget of its step."""

    def __init__(self, sparsifier: Any) -> None:
        self.sparsifier, self.looks = sparsifier, 0

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        assert_on_budget(pl_module.state_dict(), self.sparsifier)
        self.looks += 1


def assert_exact(tmp_path: Path, make: Any, average: Any, order: tuple[int, ...] = (0, 1, 2)) -> None:
    sparsifier = make()
    watch = Exact(sparsifier)
    callbacks = [sparsifier, average(), watch]
    module = fit(tmp_path, *(callbacks[i] for i in order))
    assert watch.looks == 3
    assert_on_budget(module.state_dict(), sparsifier)
    assert not sparsifier.promise.problems
    saved = load_checkpoint(tmp_path / f"checkpoints/step={STEPS}.ckpt")["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())
    for step in (4, 8):
        state = load_checkpoint(tmp_path / f"checkpoints/step={step}.ckpt")["state_dict"]
        assert excess(state, sparsifier.targets(step)) is None


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_an_average_keeps_the_budget_where_it_is_validated_saved_and_left_behind(make, average, tmp_path):
    assert_exact(tmp_path, make, average)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_average_keeps_the_budget_in_any_order_of_callbacks(order, tmp_path):
    assert_exact(tmp_path, METHODS["annealed"], AVERAGES["ema"], order)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")  # the data follow the step
@pytest.mark.parametrize("average", ["ema", "ema, every third step", "mean"])
def test_a_resumed_average_ends_with_the_same_bytes(average, tmp_path):
    def run(folder: str, **kwargs: Any) -> Regression:
        return fit(tmp_path / folder, METHODS["annealed"](), AVERAGES[average](), **kwargs)

    straight = run("straight")
    module = run("again", ckpt_path=tmp_path / "straight/checkpoints/step=8.ckpt")
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "other", "name"),
    [
        (METHODS["annealed"], lambda: StochasticWeightAveraging(0.01, swa_epoch_start=1), "StochasticWeightAveraging"),
        (METHODS["static"], lambda: ModelPruning("l1_unstructured", amount=0.5), "ModelPruning"),
        (lambda: SelfPacedSparsity(0.2), EMAWeightAveraging, "EMAWeightAveraging"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_callbacks_whose_weights_cannot_be_held_to_a_budget_are_refused_by_name(make, other, name, first, tmp_path):
    module, callbacks = Regression(), [make(), other()]
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(SparselitError, match=f"{name} beside") as error:
        fit(tmp_path, *(callbacks if first else callbacks[::-1]), module=module)
    assert str(error.value).count("\n") == 0
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def refill(module: nn.Module) -> None:
    with torch.no_grad():
        module.first.weight[module.first.weight == 0] = 0.01  # type: ignore[union-attr, operator]


class AfterSteps(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        refill(pl_module)


class AtTheEnd(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        refill(pl_module)


class IntoCheckpoints(Callback):
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        checkpoint["state_dict"] = {name: tensor + 1 for name, tensor in checkpoint["state_dict"].items()}


class OwnHook(Regression):
    def on_train_batch_end(self, *args: Any) -> None:
        refill(self)


WRITERS = [AfterSteps, AtTheEnd, IntoCheckpoints]


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("writer", [*WRITERS, OwnHook], ids=lambda writer: writer.__name__)
def test_whoever_writes_weights_after_the_projection_is_found_out(writer, make, tmp_path):
    sparsifier, module = make(), OwnHook() if writer is OwnHook else None
    callbacks = [] if writer is OwnHook else [writer()]
    with pytest.warns(UserWarning, match=r"problem: the (checkpoint|model) (of|after) step \d+ has density"):
        fit(tmp_path, *callbacks, sparsifier, module=module)
    assert sparsifier.promise.problems
    assert "first.weight: " in sparsifier.promise.problems[0]


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_an_ordinary_run_has_no_problem(make, tmp_path):
    sparsifier = make()
    fit(tmp_path, sparsifier, ModelCheckpoint(tmp_path / "other", save_top_k=-1, every_n_train_steps=1))
    assert not sparsifier.promise.problems


def test_a_checkpoint_is_written_again_where_the_weights_have_changed_since(tmp_path):
    class Halve(Callback):
        def on_train_end(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.second.weight.mul_(0.5)

    module = fit(tmp_path, Halve(), METHODS["annealed"]())
    saved = load_checkpoint(tmp_path / f"checkpoints/step={STEPS}.ckpt")["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())
