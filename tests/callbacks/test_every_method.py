"""What every sparsity method owes: exact budgets whatever the trainer does, and runs that survive a kill.

A class joins by its name in ``sparselit.callbacks.__all__``; ``tests/callbacks/methods.py`` says how it acts early.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import (
    RETURNING,
    SHORT,
    STEPS,
    Member,
    Regression,
    Watch,
    arguments_of,
    fit,
    flat,
    members,
    registered,
    trained,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the density (stopped|was reached)"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),  # of data
]

MEMBERS = members()
COUNTED = {name: member for name, member in MEMBERS.items() if name not in RETURNING}
WITH_DENSITY = {name: member for name, member in MEMBERS.items() if member.takes_density and member.is_exact}
SCHEDULED = {name: member for name, member in WITH_DENSITY.items() if member.follows_schedules}
FIXED = {name: member for name, member in WITH_DENSITY.items() if name not in SCHEDULED}

FALLING = {
    "linear": lambda density: Schedule(to=density, begin=0.1, end=0.8),
    "exponential": lambda density: Schedule(to=density, begin=2, end=9, shape="exponential"),
    "cubic": lambda density: Schedule(to=density, end=0.9, shape="cubic"),
    "cosine": lambda density: Schedule(to=density, end=0.9, shape="cosine"),
    "step": lambda density: Schedule(to=density, end=0.9, shape="step", jumps=3),
    "piecewise": lambda density: [Schedule(to=(1 + density) / 2, end=4), Schedule(to=density, begin=6, end=10)],
}


def each(found: dict[str, Member]) -> Any:
    return pytest.mark.parametrize("member", found.values(), ids=found)


def test_every_registered_method_is_a_member_and_no_other():
    assert {member.kind for member in MEMBERS.values()} == set(registered().values())
    assert SHORT.keys() <= registered().keys()
    assert len(SCHEDULED) > 5
    assert len(FIXED) > 5


@pytest.mark.parametrize("kind", registered().values(), ids=registered())
def test_every_argument_has_help_and_those_of_the_base_are_offered(kind):
    found, base = arguments_of(kind), arguments_of(Sparsifier)
    assert not [name for name, text in found.items() if not text]
    assert base.keys() - {"density", "distribution"} <= found.keys()
    if "density" in found:
        assert "distribution" in found
    assert {found[name] for name in ("moments", "grads")} <= set(base.values())


# -- exact budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "density"),
    [("number", 1e-6), ("number", 0.2), ("number", 1.0), *((kind, 0.2) for kind in FALLING), ("cubic", 1e-6)],
)
@each(SCHEDULED)
def test_methods_with_a_schedule_keep_exactly_k(member, schedule, density, make_trainer):
    callback = member(density if schedule == "number" else FALLING[schedule](density))
    _, watch = trained(callback, make_trainer)
    watch.check()
    last = callback.targets(STEPS)
    if member.name != "SelfPacedSparsity":  # whose clock stands where it stands, whatever the step
        assert watch.targets == [callback.targets(step) for step in range(1, STEPS + 1)]
    assert last == {f"weights.{i}": max(1, int(density * n + 0.5)) for i, n in enumerate((91, 7, 5, 1, 32))}


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
@each(FIXED)
def test_methods_with_a_fixed_number_keep_exactly_k(member, distribution, make_trainer):
    for density in (1e-6, 0.3, 1.0):
        callback = member(density, distribution=distribution)
        _, watch = trained(callback, make_trainer)
        watch.check()
        assert watch.targets == [callback.targets(step) for step in range(1, STEPS + 1)]
        total = sum(callback.targets(STEPS).values())
        assert total == max(5, int(density * 136 + 0.5)) or distribution == "uniform"


@pytest.mark.parametrize("per", ["row", "column", "both"])
@each(WITH_DENSITY)
def test_every_method_keeps_its_floors_inside_the_budget(member, per, make_trainer):
    rules = [Rule("weights.0", floor=1, per=per), Rule("*", density=None)]
    module, watch = trained(member(0.25, rules), make_trainer)
    alive = watch.masks[-1].get("weights.0", module.weights[0] != 0)
    assert alive.sum() == 23
    assert per == "column" or alive.any(1).all()
    assert per == "row" or alive.any(0).all()


@each(COUNTED)
def test_every_matrix_is_sparsified_and_vectors_are_trained_dense(member, module, make_trainer):
    rules = [Rule("network.0.weight", density=None)]
    convolution = "network.0.weight" in dict(module.named_parameters())
    callback, watch = member.usual(rules=rules if convolution and not member.takes_density else None), Watch()
    dense = {name: p.detach().clone() for name, p in module.named_parameters() if p.ndim < 2}
    make_trainer(callback, watch, max_steps=STEPS).fit(module)
    watch.check(member.is_exact)
    matrices = {name for name, p in module.named_parameters() if p.ndim >= 2}
    assert set(watch.targets[0]) == matrices - ({"network.0.weight"} if callback.rules else set())
    assert all(not torch.equal(p, dense[name]) for name, p in module.named_parameters() if name in dense)
    assert callback.step == len(watch.targets) == STEPS
    reached = 0.1 if member.follows_schedules else 0.25 if member.takes_density else 0.5
    assert callback.density_now == pytest.approx(reached, abs=0.01)


SETTINGS: dict[str, dict[str, Any]] = {
    "accumulation": {"accumulate_grad_batches": 3},
    "clipping": {"gradient_clip_val": 0.01},
    "bf16-mixed": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("setting", SETTINGS)
@each(COUNTED)
def test_budgets_are_exact_after_every_batch_whatever_the_trainer_does(member, setting, make_trainer):
    module, callback, watch = Regression(), member.usual(), Watch()
    make_trainer(callback, watch, max_epochs=-1, max_steps=STEPS, **SETTINGS[setting]).fit(module)
    watch.check(member.is_exact)
    assert callback.step == STEPS
    assert module.first.weight.dtype == torch.float32
    if setting == "accumulation":
        assert watch.steps[:6] == [0, 0, 1, 1, 1, 2]


# -- policies ---------------------------------------------------------------------------------------------------------

#: Moments and gradients of each method unless a user says otherwise; a method without a line here has its own.
DEFAULTS = {
    "AcdcSparsity": ("reset", "masked"),
    "AnnealedSparsity": ("keep", "dense"),
    "DynamicSparsity": ("reset", "masked"),
    "GradualPruning": ("mask", "masked"),
    "LotteryTicket": ("mask", "masked"),
    "OneShotPruning": ("mask", "masked"),
    "ProximalSparsity": ("keep", "dense"),
    "RiglSparsity": ("reset", "masked"),
    "SelfPacedSparsity": ("keep", "dense"),
    "SemiStructuredSparsity": ("keep", "dense"),
    "SnipSparsity": ("keep", "masked"),
    "StaticSparsity": ("keep", "masked"),
}


@each({name: Member(name, kind) for name, kind in registered().items()})
def test_each_method_has_its_own_default_policies(member, make_trainer):
    callback = member(rules=[Rule("weights.[0-3]", density=None)])
    moments, grads = DEFAULTS.get(member.name, (callback.moments, callback.grads))
    assert (callback.moments, callback.grads) == (moments, grads)
    _, watch = trained(callback, make_trainer)
    masked = []
    for step in range(STEPS - 2):
        dead = watch.weights[step]["weights.4"] == 0
        dead &= ~watch.masks[step].get("weights.4", torch.zeros(8, 4, dtype=torch.bool))
        masked.append(not watch.gradients[step + 1]["weights.4"][dead].any() or not dead.any())
    if grads == "masked":
        assert all(masked)
    elif member.name != "SelfPacedSparsity":  # nothing is dead before its loss is low
        assert not all(masked)


@pytest.mark.parametrize("grads", ["dense", "masked"])
@each({name: member for name, member in WITH_DENSITY.items() if name in registered()})
def test_masked_gradients_leave_the_norm_of_clipping_to_the_live_entries(member, grads, make_trainer):
    _, watch = trained(member(0.25, grads=grads), make_trainer, gradient_clip_val=0.01)
    last, masks, weights = watch.gradients[-1], watch.masks[-2], watch.weights[-2]
    square = sum(float(gradient.square().sum()) for gradient in last.values())
    live = sum(float(last[name][masks.get(name, weights[name] != 0)].square().sum()) for name in last)
    assert square**0.5 == pytest.approx(0.01, rel=1e-3)
    assert (live == pytest.approx(square)) == (grads == "masked")


# -- two processes ----------------------------------------------------------------------------------------------------


def run_program(name: str, folder: Path) -> None:
    """Run a program of this folder, which leaves files in ``folder``."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    command = [sys.executable, str(here / name), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    run_program("two_processes.py", folder)
    weights = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    reports = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for report, tensors in zip(reports, weights, strict=True):
        for name in report:
            report[name]["weights"] = tensors[name]
    return reports


@pytest.mark.parametrize("name", [*MEMBERS, "exchanging", "self-paced"])
def test_two_processes_stay_equal_and_exact(name, in_two_processes):
    first, second = (report[name] for report in in_two_processes)
    assert all(torch.equal(weight, second["weights"][key]) for key, weight in first["weights"].items())
    for report in (first, second):
        assert (report["steps"], report["differ"], report["exceed"]) == (STEPS, [], [])
    if name == "exchanging":
        assert first["live"]["first.weight"] == 10
        assert 0 < first["live"]["second.weight"] <= 14
    if name == "self-paced":
        assert first["rollbacks"]
        assert first["locked"]


def test_processes_that_grow_weights_on_gradients_of_their_own_part_ways(in_two_processes):
    for report in in_two_processes:
        assert report["on local gradients"]["differ"][0] == 3


# -- kill and resume --------------------------------------------------------------------------------------------------


@each({**MEMBERS, "AnnealedSparsity-constant": Member("", registered()["AnnealedSparsity"])})
def test_a_resumed_run_ends_with_the_same_bytes(member, tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(*callbacks: Callback, ckpt_path: Any = None) -> Regression:
        module = Regression()
        if ckpt_path:  # nothing of the first run but the checkpoint is used
            nn.init.zeros_(module.first.weight)
        fit(module, member.usual(), *callbacks, ckpt_path=ckpt_path, max_steps=16)
        return module

    straight = run(Save())
    for at in (6, 7, 9):  # 6 and 9 are steps of an exchange
        resumed = run(ckpt_path=tmp_path / f"{at}.ckpt")
        for name, value in straight.state_dict().items():
            assert torch.equal(value.view(torch.int32), resumed.state_dict()[name].view(torch.int32)), (name, at)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    run_program("killed.py", folder)
    return folder


@each(MEMBERS)
def test_a_killed_run_goes_on_bit_for_bit_from_a_checkpoint_that_was_moved(member, killed):
    report = json.loads((killed / "report.json").read_text())[member.name]
    assert report == {"codes": [0, -9, 0], "newest": 8}
    kept = ("state_dict", "optimizer_states", "callbacks")

    def state(part: str) -> dict[str, torch.Tensor]:
        found = torch.load(killed / member.name / part / f"{STEPS}.ckpt", weights_only=True)
        return dict(flat({key: found[key] for key in kept}))

    whole, resumed = state("whole"), state("resumed")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert tensor.numpy().tobytes() == resumed[name].numpy().tobytes(), name
    moved = torch.load(killed / member.name / "moved/elsewhere.ckpt", weights_only=True)
    assert moved["state_dict"].keys() == Regression().state_dict().keys(), "ordinary tensors and nothing else"
