"""The length of a run is the number of optimizer steps that it takes, whatever limits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from sparselit.callbacks import AnnealedSparsity
from torch.utils.data import DataLoader, IterableDataset

from sparselit.sparsity import Schedule
from sparselit.training.steps import is_last_step, run_length
from tests.callbacks.methods import Regression, fit

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")  # of data


class Endless(IterableDataset[int]):
    def __iter__(self) -> Any:
        while True:
            yield 0


class Streamed(Regression):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Endless())


class Changing(Regression):
    """Another number of batches in every epoch."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(4 + 3 * self.current_epoch))  # type: ignore[arg-type]


class By(Callback):
    """Notes the length at the start of training and of every epoch."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.last: set[int] = set()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.lengths.append(run_length(trainer, pl_module))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.lengths.append(run_length(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if is_last_step(trainer):
            self.last.add(trainer.global_step)


def scheduler() -> GradientAccumulationScheduler:
    return GradientAccumulationScheduler({0: 4, 1: 2, 3: 1})


#: Ten batches in an epoch unless a setting says otherwise; the steps that are taken.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "max_steps": ({"max_steps": 7}, 7),
    "max_steps over epochs": ({"max_steps": 25}, 25),
    "max_epochs": ({"max_epochs": 3}, 30),
    "both, epochs first": ({"max_epochs": 3, "max_steps": 1000}, 30),
    "both, steps first": ({"max_epochs": 3, "max_steps": 12}, 12),
    "accumulation": ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9),
    "accumulation and steps": ({"max_steps": 8, "accumulate_grad_batches": 4}, 8),
    "accumulation scheduler": ({"max_epochs": 5, "callbacks": [scheduler]}, 3 + 5 + 5 + 10 + 10),
    "accumulation scheduler and steps": ({"max_epochs": 5, "max_steps": 20, "callbacks": [scheduler]}, 20),
    "limited batches": ({"max_epochs": 4, "limit_train_batches": 3}, 12),
    "a share of the batches": ({"max_epochs": 4, "limit_train_batches": 0.5}, 20),
    "overfit": ({"max_epochs": 4, "overfit_batches": 2}, 8),
    "stream": ({"max_steps": 9, "module": Streamed}, 9),
    "limited stream": ({"max_epochs": 3, "limit_train_batches": 5, "module": Streamed}, 15),
    "one step": ({"fast_dev_run": True}, 1),
}


def trained(setting: str, *callbacks: Callback, **more: Any) -> Any:
    given = {**SETTINGS[setting][0], **more}
    own = [make() for make in given.pop("callbacks", [])]
    module = given.pop("module", Regression)()
    return fit(module, *own, *callbacks, **given)


@pytest.mark.filterwarnings("ignore:Using `DataLoader")
@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_length_is_known_before_the_first_step_and_the_schedule_ends_with_it(setting: str) -> None:
    by, sparsifier = By(), AnnealedSparsity(Schedule(to=0.1, end=1.0))
    trainer = trained(setting, sparsifier, by)
    assert set(by.lengths) == by.last == {trainer.global_step} == {SETTINGS[setting][1]}
    assert sparsifier.total_steps == sparsifier.step == trainer.global_step
    assert sparsifier.kept == {"first.weight": 10, "second.weight": 5}
    assert not sparsifier.arrival.missed


@pytest.mark.parametrize("at", [1, 4, 9, 10, 11, 19, 20])
def test_the_length_of_a_resumed_run_is_that_of_the_whole(at: int, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "at.ckpt")

    trained("max_epochs", Save())
    by, sparsifier = By(), AnnealedSparsity(Schedule(to=0.1, end=1.0))
    trainer = trained("max_epochs", sparsifier, by, ckpt_path=tmp_path / "at.ckpt")
    assert set(by.lengths) == {trainer.global_step} == {30}


@pytest.mark.parametrize("setting", ["accumulation", "accumulation scheduler", "limited batches"])
def test_other_settings_on_resume_count_from_where_the_run_stands(setting: str, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    trained("max_epochs", AnnealedSparsity(Schedule(to=0.1, end=1.0)), Save())
    sparsifier = AnnealedSparsity(Schedule(to=0.1, end=1.0))
    trainer = trained(setting, sparsifier, ckpt_path=tmp_path / "1.ckpt", max_epochs=5)
    assert sparsifier.total_steps == trainer.global_step != 30
    assert not sparsifier.arrival.missed


def test_an_epoch_of_another_length_is_seen_when_it_begins() -> None:
    sparsifier = AnnealedSparsity(Schedule(to=0.1, end=1.0))
    trainer = fit(Changing(), sparsifier, max_epochs=4, reload_dataloaders_every_n_epochs=1)
    assert trainer.global_step == 4 + 7 + 10 + 13
    assert sparsifier.total_steps == trainer.global_step
    assert not sparsifier.arrival.missed


def test_manual_optimization_in_epochs_has_no_length_that_is_known() -> None:
    class Manual(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    by = By()
    fit(Manual(), by, max_epochs=2)
    assert set(by.lengths) == {-1}
    with pytest.raises(Exception, match="is given in fractions of the run, whose length is not known"):
        fit(Manual(), AnnealedSparsity(Schedule(to=0.1, end=1.0)), max_epochs=2)
