"""A run that goes on with another length or another density keeps what it has reached, whatever the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from sparselit.callbacks import AnnealedSparsity, GradualPruning, StaticSparsity

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import RETURNING, STEPS, Member, Regression, fit, members

pytestmark = [
    pytest.mark.filterwarnings("ignore:the run ended with density"),  # runs that are left half way
    pytest.mark.filterwarnings("ignore:the density (stopped|was reached)"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),  # of data
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # another method in place of one
]

#: A method whose clock does not follow the step (SelfPacedSparsity) or that thaws in phases (AcdcSparsity) is in too.
MEMBERS = {name: member for name, member in members().items() if name not in RETURNING}


class Counts(Callback):
    """Living entries after each step: those of the weights, and those of the plan."""

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier
        self.living: dict[int, int] = {}
        self.planned: dict[int, int] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.living[trainer.global_step] = sum(
            int(w.count_nonzero()) for w in self.sparsifier.tensors(pl_module).values()
        )
        self.planned[trainer.global_step] = sum(self.sparsifier.kept.values())


def run(sparsifier: Sparsifier, steps: int, folder: Path, ckpt_path: Path | None = None) -> tuple[Counts, Path]:
    counts = Counts(sparsifier)
    trainer = fit(Regression(), sparsifier, counts, max_steps=steps, ckpt_path=ckpt_path)
    path = folder / f"{steps}.ckpt"
    trainer.save_checkpoint(path)
    return counts, path


@pytest.mark.parametrize("longer", [STEPS + 1, 3 * STEPS, 10 * STEPS])
@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_a_longer_run_keeps_the_density_that_it_has_reached(member: Member, longer: int, tmp_path: Path) -> None:
    first, path = run(member.usual(), STEPS, tmp_path)
    more, _ = run(member.usual(), longer, tmp_path, path)
    assert set(more.planned) == set(range(STEPS + 1, longer + 1))
    assert max(more.planned.values()) <= first.planned[STEPS]
    assert max(more.living.values()) <= first.planned[STEPS]


def test_a_trainer_that_fits_on_for_longer_keeps_the_density_too():
    module, sparsifier = Regression(), AnnealedSparsity(Schedule(to=0.1, end=0.5))
    counts = Counts(sparsifier)
    trainer = fit(module, sparsifier, counts, max_steps=STEPS)
    trainer.fit_loop.epoch_loop.max_steps = 4 * STEPS
    trainer.fit(module)
    assert counts.living[4 * STEPS] == max(counts.living[step] for step in range(STEPS, 4 * STEPS + 1)) == 10 + 5


@pytest.mark.parametrize("lengths", [(40, 20), (40, 120), (40, 41)], ids=str)
@pytest.mark.parametrize("shape", ["linear", "cubic", "cosine", "exponential", "step"])
@pytest.mark.parametrize("kind", [AnnealedSparsity, GradualPruning])
def test_a_length_that_changes_half_way_ends_at_the_target_and_never_rises(kind, shape, lengths, tmp_path):
    def sparsifier() -> Sparsifier:
        more = {"every_n_steps": 1} if kind is GradualPruning else {}
        return kind(Schedule(to=0.1, begin=0.1, end=0.8, shape=shape), **more)

    class Leave(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 13:
                trainer.save_checkpoint(tmp_path / "13.ckpt")
                trainer.should_stop = True

    counts = Counts(first := sparsifier())
    fit(Regression(), first, counts, Leave(), max_steps=lengths[0])
    more, _ = run(sparsifier(), lengths[1], tmp_path, tmp_path / "13.ckpt")
    living = [counts.planned[13], *(more.planned[step] for step in range(14, lengths[1] + 1))]
    assert living == sorted(living, reverse=True)
    assert living[-1] == 10 + 5
    assert living[1] < 144
    if lengths[1] > lengths[0] + 1:
        assert living[1] > 15, "the rest of the schedule is spread over the rest of the run"


@pytest.mark.parametrize("before", [0.1, Schedule(to=0.1, end=0.5), Schedule(to=0.1, begin=2, end=6)], ids=str)
@pytest.mark.parametrize(
    ("after", "reached"),
    [
        (Schedule(to=0.05, end=0.5), 0.05),
        (Schedule(to=0.1, begin=0.5, end=0.9), 0.1),
        (Schedule(to=0.3, end=0.9), 0.3),  # a higher target is a wish for more
        (Schedule(to=0.5, start=0.05), 0.5),
        (0.02, 0.02),
        (0.4, 0.4),
    ],
    ids=str,
)
def test_another_density_is_followed_and_rises_only_where_its_target_is_higher(before, after, reached, tmp_path):
    first, path = run(AnnealedSparsity(before), STEPS, tmp_path)
    more, _ = run(AnnealedSparsity(after), 3 * STEPS, tmp_path, path)
    goal = sum(max(1, int(reached * n + 0.5)) for n in (96, 48))
    assert more.planned[3 * STEPS] == more.living[3 * STEPS] == goal
    assert max(more.planned.values()) <= max(first.planned[STEPS], goal)


@pytest.mark.parametrize("after", MEMBERS.values(), ids=MEMBERS)
def test_another_method_begins_at_the_density_that_was_reached(after: Member, tmp_path: Path) -> None:
    first, path = run(AnnealedSparsity(Schedule(to=0.25, end=0.5)), STEPS, tmp_path)
    more, _ = run(after.usual(), 3 * STEPS, tmp_path, path)
    if after.takes_density:  # 2:4 has its own
        assert more.planned[3 * STEPS] <= first.planned[STEPS]
        assert more.living[3 * STEPS] <= first.planned[STEPS]


@pytest.mark.parametrize("kind", [StaticSparsity, GradualPruning])
@pytest.mark.parametrize("density", [0.3, 0.1])
def test_masks_that_cannot_change_so_are_refused_in_one_line(kind, density, tmp_path):
    _, path = run(kind(0.2), STEPS, tmp_path)
    if kind is GradualPruning and density < 0.2:
        more, _ = run(kind(density), 2 * STEPS, tmp_path, path)
        assert more.living[2 * STEPS] == 10 + 5
        return
    with pytest.raises(SparselitError, match="without --ckpt_path") as error:
        run(kind(density), 2 * STEPS, tmp_path, path)
    assert "\n" not in str(error.value)


def test_other_rules_leave_the_other_tensors_as_they_were(tmp_path):
    _, path = run(AnnealedSparsity(Schedule(to=0.1, end=0.5)), STEPS, tmp_path)
    rules = [Rule("second.weight", density=0.5)]
    sparsifier = AnnealedSparsity(Schedule(to=0.1, end=0.5), rules)
    run(sparsifier, 4 * STEPS, tmp_path, path)
    assert sparsifier.kept == {"first.weight": 10, "second.weight": 24}


@pytest.mark.parametrize("twice", [False, True])
def test_a_run_whose_length_has_changed_resumes_to_the_same_bytes(twice, tmp_path):
    def sparsifier() -> Sparsifier:
        return AnnealedSparsity(Schedule(to=0.1, begin=0.1, end=0.9))

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"at{trainer.global_step}.ckpt")

    fit(Regression(), sparsifier(), Save(), max_steps=8)
    straight, again = Regression(), Regression()
    fit(straight, sparsifier(), Save(), max_steps=24, ckpt_path=tmp_path / "at5.ckpt")
    fit(again, sparsifier(), max_steps=24, ckpt_path=tmp_path / f"at{15 if twice else 6}.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
