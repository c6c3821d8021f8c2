"""A search begins where the schedule leads: never is nothing searched without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sparselit.callbacks import AnnealedSparsity, GradualPruning, OneShotPruning, SelfPacedSparsity, StaticSparsity

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.begin import Begin
from sparselit.training.circuit_metrics import density
from sparselit.training.discovery import transformer_of
from tests.training.test_discovery import Scripted, files, train

pytestmark = pytest.mark.filterwarnings("ignore:the (run ended with )?density")

METHODS: dict[str, Any] = {
    "annealed": lambda: AnnealedSparsity(Schedule(to=0.3, end=0.5)),
    "stages": lambda: AnnealedSparsity([Schedule(to=0.6, end=0.2), Schedule(to=0.3, begin=0.3, end=0.5)]),
    "static": lambda: StaticSparsity(0.3),
    "shared": lambda: StaticSparsity(0.3, distribution="erk"),
    "gradual": lambda: GradualPruning(Schedule(to=0.3, end=0.5), every_n_steps=2),
    "one shot": lambda: OneShotPruning(0.3, at=0.5),
    "paced": lambda: SelfPacedSparsity(Schedule(to=0.3, end=0.5), loss_below=1e9, hold=0.0),
    "rules": lambda: AnnealedSparsity(Schedule(to=0.3, end=0.5), [Rule("*attn*", density=None)]),
    "rules of their own": lambda: AnnealedSparsity(Schedule(to=0.3, end=0.5), [Rule("*mlp*", density=0.2)]),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_begin_below_the_target_is_read_as_the_target_and_told(make: Any, tmp_path: Path) -> None:
    told: list[str] = []
    discovery = Scripted([1] * 8, every_n_steps=1, begin=Begin(density=0.01))
    discovery.announce = told.append
    trainer = train(tmp_path, make(), discovery, steps=8)
    reached = density(transformer_of(trainer.lightning_module))
    assert told[0].startswith("circuits.begin.density 0.01 is below the density at which the sparsity ends: ")
    assert f"from {reached:.4g} on" in told[0]
    assert "step=8.json" in files(tmp_path)
    assert len(files(tmp_path)) == discovery.calls < 9


@pytest.mark.parametrize("begin", [0.31, 0.5, 1.0])
def test_a_begin_that_is_reached_is_left_alone(begin: float, tmp_path: Path) -> None:
    told: list[str] = []
    discovery = Scripted([1], every_n_steps=100, begin=Begin(density=begin))
    discovery.announce = told.append
    train(tmp_path, METHODS["annealed"](), discovery, steps=8)
    assert len(told) == 1
    assert "step 8" in told[0]


def test_without_sparsity_a_begin_that_never_comes_is_refused_before_the_first_step(tmp_path: Path) -> None:
    discovery = Scripted([1], begin=Begin(density=0.3))
    with pytest.raises(
        SparselitError, match=r"begin\.density is 0\.3, and nothing makes the model sparser than 1"
    ) as e:
        train(tmp_path, discovery, steps=4)
    assert "\n" not in str(e.value)
    assert discovery._seen == 0


@pytest.mark.parametrize(
    ("begin", "sparsity", "reason"),
    [
        (Begin(step=900), METHODS["static"], "circuits.begin.step is 900, the run ended at step 4"),
        (
            Begin(density=0.5),
            lambda: AnnealedSparsity(Schedule(to=0.3, end=40)),
            "the density came down to 0.935",
        ),
        (
            Begin(density=0.5),
            lambda: SelfPacedSparsity(Schedule(to=0.3, end=0.5), loss_below=1e-9),
            "circuits.begin.density is 0.5",
        ),
    ],
)
def test_a_run_that_searched_nothing_says_why(begin, sparsity, reason, tmp_path: Path) -> None:
    discovery = Scripted([1], every_n_steps=1, begin=begin)
    train(tmp_path, sparsity(), discovery, steps=4)
    assert discovery.reason.startswith("no step was searched: ")
    assert reason in discovery.reason


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_epochs": 1, "accumulate_grad_batches": 2}], ids=str)
def test_the_last_step_of_a_run_in_epochs_is_searched(settings: dict[str, Any], tmp_path: Path) -> None:
    discovery = Scripted([1], every_n_steps=1000)
    trainer = train(tmp_path, METHODS["static"](), discovery, steps=-1, limit_train_batches=6, **settings)
    assert files(tmp_path) == [f"step={trainer.global_step}.json"]
