"""A lottery ticket: what survives one pruning is trained again from earlier weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from sparselit.callbacks import LotteryTicket, OneShotPruning
from torch import Tensor

from sparselit.errors import SparselitError
from tests.callbacks.methods import Regression, fit

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),  # of data
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # another method in place of one
]


class States(Callback):
    """The module after each step, and at the beginning."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, Tensor]] = {}

    def _note(self, trainer: Any, module: Any) -> None:
        self.after[trainer.global_step] = {name: t.clone() for name, t in module.state_dict().items()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._note(trainer, pl_module)


@pytest.mark.parametrize(("rewind", "step"), [(0.0, 0), (0.25, 3), (3, 3), (5, 5)])
def test_survivors_and_dense_parameters_have_the_weights_of_the_earlier_step(rewind: float, step: int) -> None:
    states, sparsifier = States(), LotteryTicket(0.25, at=6, rewind=rewind)
    fit(Regression(), sparsifier, states, max_steps=12)
    dense, cut = OneShotPruning(0.25, at=6), States()
    fit(Regression(), dense, cut, max_steps=6)
    for name, early in states.after[step].items():
        mask = dense.masks.get(name, torch.ones_like(early, dtype=torch.bool))  # of the same training until then
        assert torch.equal(states.after[6][name], early * mask)
        assert not torch.equal(states.after[6][name], cut.after[6][name])
        assert not torch.equal(states.after[12][name], states.after[6][name])  # it is trained again
    assert sparsifier.ticket is None


def test_the_optimizer_forgets_its_moments_when_the_weights_come_back() -> None:
    class Moments(Callback):
        seen: ClassVar[dict[int, int]] = {}

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            self.seen[trainer.global_step] = len(trainer.optimizers[0].state)

    moments = Moments()
    fit(Regression(), LotteryTicket(0.25, at=6), moments, max_steps=7)
    assert (moments.seen[5], moments.seen[6], moments.seen[7]) == (4, 0, 4)


@pytest.mark.parametrize("at", [2, 5, 6, 9])
def test_a_run_resumed_before_or_after_the_moment_ends_with_the_same_bytes(at: int, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "at.ckpt")

    whole, again = Regression(), Regression()
    fit(whole, LotteryTicket(0.25, at=6, rewind=3), Save(), max_steps=12)
    fit(again, LotteryTicket(0.25, at=6, rewind=3), max_steps=12, ckpt_path=tmp_path / "at.ckpt")
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("at", "rewind"), [(0.5, 0.5), (0.5, 0.7), (4, 9), (0.0, 0.0), (2, 0.5)])
def test_a_moment_that_does_not_come_before_the_pruning_is_refused(at: float, rewind: float) -> None:
    with pytest.raises(SparselitError, match="must come before the moment of pruning"):
        fit(Regression(), LotteryTicket(0.25, at=at, rewind=rewind), max_steps=12)


def test_weights_that_were_not_kept_are_refused_before_the_first_step(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "at.ckpt")

    fit(Regression(), OneShotPruning(0.25, at=8), Save(), max_steps=12)
    with pytest.raises(SparselitError, match="has passed step 3 without keeping its weights"):
        fit(Regression(), LotteryTicket(0.25, at=8, rewind=3), max_steps=12, ckpt_path=tmp_path / "at.ckpt")


def test_averages_beside_it_are_refused() -> None:
    with pytest.raises(SparselitError, match="LotteryTicket"):
        fit(Regression(), LotteryTicket(0.25), EMAWeightAveraging(), max_steps=12)
