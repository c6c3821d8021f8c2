"""Every method on matrices of awkward shapes: exact budgets, policies, and what each one does that others do not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from sparselit.callbacks import (
    AcdcSparsity,
    AnnealedSparsity,
    DynamicSparsity,
    GradualPruning,
    OneShotPruning,
    ProximalSparsity,
    RiglSparsity,
    SemiStructuredSparsity,
    SnipSparsity,
    StaticSparsity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule, n_of_m
from sparselit.sparsity.schedule import steps
from sparselit.training.sparsifier import Sparsifier

STEPS = 12


class Awkward(LightningModule):
    """Prime sizes, a single entry, a single row, and a layer of 8 x 4."""

    shapes = ((7, 13), (1, 7), (5, 1), (1, 1), (8, 4))

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in self.shapes)
        self.lr = lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.trainer.global_step)
        loss = torch.zeros(())
        for weight in self.weights:
            x = torch.randn(16, weight.shape[1], generator=generator)
            loss = loss + (x @ weight.T - x.sum(1, keepdim=True).sin()).square().mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(50))  # type: ignore[arg-type]


class Watch(Callback):
    """Notes gradients of every step, and weights and masks as its checkpoint has them."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_zero_grad(self, trainer, pl_module, *args) -> None:
        found = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        if found:
            self.gradients.append(found)

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        (sparsifier,) = [c for c in trainer.callbacks if isinstance(c, Sparsifier)]
        path = f"{trainer.default_root_dir}/last.ckpt"
        trainer.save_checkpoint(path)
        found = torch.load(path, weights_only=True)
        self.weights.append(found["state_dict"])
        self.masks.append(found["callbacks"][sparsifier.state_key]["masks"])


FALLING = {
    "linear": lambda density: Schedule(to=density, begin=0.1, end=0.8),
    "exponential": lambda density: Schedule(to=density, begin=2, end=9, shape="exponential"),
    "cubic": lambda density: Schedule(to=density, end=0.9, shape="cubic"),
    "cosine": lambda density: Schedule(to=density, end=0.9, shape="cosine"),
    "step": lambda density: Schedule(to=density, end=0.9, shape="step", jumps=3),
    "piecewise": lambda density: [Schedule(to=(1 + density) / 2, end=4), Schedule(to=density, begin=6, end=10)],
}
SCHEDULED = {
    "annealed": AnnealedSparsity,
    "gradual": GradualPruning,
    "gradual-every-step": lambda *a, **k: GradualPruning(*a, every_n_steps=1, **k),
    "proximal": lambda *a, **k: ProximalSparsity(*a, strength=0.0, **k),
}
FIXED = {
    "acdc": lambda *a, **k: AcdcSparsity(*a, begin=2, end=9, every_n_steps=3, **k),
    "random": StaticSparsity,
    "magnitude": lambda *a, **k: StaticSparsity(*a, mask="magnitude", **k),
    "snip": SnipSparsity,
    "set": lambda *a, **k: DynamicSparsity(*a, every_n_steps=3, **k),
    "rigl": lambda *a, **k: RiglSparsity(*a, every_n_steps=3, **k),
    "one-shot": lambda *a, **k: OneShotPruning(*a, at=0.5, **k),
}


def trained(callback: Sparsifier, make_trainer: Any, lr: float = 0.05, **kwargs: Any) -> tuple[Awkward, Watch]:
    module, watch = Awkward(lr), Watch()
    make_trainer(callback, watch, max_steps=STEPS, **kwargs).fit(module)
    return module, watch


def check_counts(callback: Sparsifier, watch: Watch) -> None:
    """Every tensor has its budget after every step: living entries, or masks where a living weight may still be 0."""
    for step, (weights, masks) in enumerate(zip(watch.weights, watch.masks, strict=True), start=1):
        for name, k in callback.targets(step).items():
            assert int(weights[name].count_nonzero()) <= k
            assert not torch.signbit(weights[name][weights[name] == 0]).any()
            if name in masks:
                assert int(masks[name].sum()) == k
                assert not weights[name][~masks[name]].any()
            else:
                assert int(weights[name].count_nonzero()) == k


@pytest.mark.parametrize(
    ("schedule", "density"),
    [("number", 1e-6), ("number", 0.2), ("number", 1.0), *((kind, 0.2) for kind in FALLING), ("cubic", 1e-6)],
)
@pytest.mark.parametrize("method", SCHEDULED.values(), ids=SCHEDULED)
def test_methods_with_a_schedule_keep_exactly_k(method, schedule, density, make_trainer):
    callback = method(density if schedule == "number" else FALLING[schedule](density))
    _, watch = trained(callback, make_trainer)
    check_counts(callback, watch)
    last = callback.targets(STEPS)
    assert last == {f"weights.{i}": max(1, int(density * n + 0.5)) for i, n in enumerate((91, 7, 5, 1, 32))}


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
@pytest.mark.parametrize("method", FIXED.values(), ids=FIXED)
def test_methods_with_a_fixed_number_keep_exactly_k(method, distribution, make_trainer):
    for density in (1e-6, 0.3, 1.0):
        callback = method(density, distribution=distribution)
        _, watch = trained(callback, make_trainer)
        check_counts(callback, watch)
        total = sum(callback.targets(STEPS).values())
        assert total == max(5, int(density * 136 + 0.5)) or distribution == "uniform"


@pytest.mark.parametrize("per", ["row", "column", "both"])
@pytest.mark.parametrize("method", [*SCHEDULED.values(), *FIXED.values()], ids=[*SCHEDULED, *FIXED])
def test_every_method_keeps_its_floors_inside_the_budget(method, per, make_trainer):
    rules = [Rule("weights.0", floor=1, per=per), Rule("*", density=None)]
    callback = method(0.25, rules)
    module, watch = trained(callback, make_trainer)
    alive = watch.masks[-1].get("weights.0", module.weights[0] != 0)
    assert alive.sum() == 23
    assert per == "column" or alive.any(1).all()
    assert per == "row" or alive.any(0).all()


# -- policies -------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "annealed": (AnnealedSparsity, "keep", "dense"),
    "static": (StaticSparsity, "keep", "masked"),
    "snip": (SnipSparsity, "keep", "masked"),
    "set": (DynamicSparsity, "reset", "masked"),
    "rigl": (RiglSparsity, "reset", "masked"),
    "gradual": (GradualPruning, "mask", "masked"),
    "one-shot": (OneShotPruning, "mask", "masked"),
    "acdc": (AcdcSparsity, "reset", "masked"),
    "proximal": (ProximalSparsity, "keep", "dense"),
    "n:m": (SemiStructuredSparsity, "keep", "dense"),
}


@pytest.mark.parametrize(("kind", "moments", "grads"), DEFAULTS.values(), ids=DEFAULTS)
def test_each_method_has_its_own_default_policies(kind, moments, grads, make_trainer):
    groups = [Rule("weights.[0-3]", density=None)]
    callback = kind(rules=groups) if kind is SemiStructuredSparsity else kind(0.25, rules=groups)
    assert (callback.moments, callback.grads) == (moments, grads)
    _, watch = trained(callback, make_trainer)
    masked = []
    for before, after in itertools.pairwise(range(STEPS - 1)):
        dead = watch.weights[before]["weights.4"] == 0
        dead &= ~watch.masks[before].get("weights.4", torch.zeros(8, 4, dtype=torch.bool))
        masked.append(not watch.gradients[after]["weights.4"][dead].any() or not dead.any())
    assert all(masked) == (grads == "masked")


@pytest.mark.parametrize("grads", ["dense", "masked"])
def test_masked_gradients_leave_the_norm_of_clipping_to_the_live_entries(grads, make_trainer):
    callback = AnnealedSparsity(0.25, grads=grads)
    _, watch = trained(callback, make_trainer, gradient_clip_val=0.01)
    last, weights = watch.gradients[-1], watch.weights[-2]
    square = sum(float(gradient.square().sum()) for gradient in last.values())
    live = sum(float(last[name][weights[name] != 0].square().sum()) for name in last)
    assert square**0.5 == pytest.approx(0.01, rel=1e-3)
    assert (live == pytest.approx(square)) == (grads == "masked")


# -- what each method does -------------------------------------------------------------------------------------------


def test_snip_keeps_the_largest_products_of_weight_and_first_gradient(make_trainer):
    callback = SnipSparsity(0.3)
    _, watch = trained(callback, make_trainer)
    dense = Awkward()

    class Stop(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            self.scores = {n: (p * p.grad).abs().detach().clone() for n, p in pl_module.named_parameters()}

    stop = Stop()
    make_trainer(stop, max_steps=1).fit(dense)
    for name, k in callback.targets(STEPS).items():
        order = stop.scores[name].flatten().sort(descending=True, stable=True).indices[:k]
        assert sorted(order.tolist()) == callback.masks[name].flatten().nonzero().flatten().tolist()
        assert all(torch.equal(masks[name], callback.masks[name]) for masks in watch.masks)


def test_pruned_weights_stay_dead_in_gradual_pruning_and_come_back_in_projection(make_trainer):
    def revived(callback: Sparsifier) -> int:
        _, watch = trained(callback, make_trainer, lr=0.5)
        pairs = itertools.pairwise(watch.weights)
        return sum(int(((a["weights.0"] == 0) & (b["weights.0"] != 0)).sum()) for a, b in pairs)

    schedule = Schedule(to=0.1, end=0.8, shape="cubic")
    assert revived(GradualPruning(schedule, every_n_steps=2)) == 0
    assert revived(AnnealedSparsity(schedule)) > 0


def test_gradual_pruning_refuses_a_density_that_rises():
    with pytest.raises(SparselitError, match=r"weights\.0: its density must not rise"):
        GradualPruning(Schedule(start=0.1, to=0.5)).validate(Awkward(), 10)
    with pytest.raises(SparselitError, match="must not rise"):
        GradualPruning([Schedule(to=0.1, end=4), Schedule(to=0.5, begin=5, end=9)]).validate(Awkward(), 10)


def test_one_shot_pruning_cuts_once_at_its_moment(make_trainer):
    _, watch = trained(OneShotPruning(0.2, at=5), make_trainer)
    live = [int(weights["weights.0"].count_nonzero()) for weights in watch.weights]
    assert live == [91] * 4 + [18] * 8
    assert all(torch.equal(masks["weights.0"], watch.masks[-1]["weights.0"]) for masks in watch.masks[4:])


def test_phases_alternate_and_the_last_one_is_sparse(make_trainer):
    callback = AcdcSparsity(0.2, begin=2, end=9, every_n_steps=3)
    _, watch = trained(callback, make_trainer)
    live = [int(weights["weights.0"].count_nonzero()) for weights in watch.weights]
    assert [n < 91 for n in live] == [step in (2, 3, 4) or step >= 8 for step in range(1, STEPS + 1)]
    assert {n for n in live if n < 91} == {18}
    assert torch.equal(watch.masks[1]["weights.0"], watch.masks[3]["weights.0"])
    late = AcdcSparsity(0.2, begin=2, end=7, every_n_steps=3)
    _, watch = trained(late, make_trainer)  # the run ends a dense phase early
    live = [int(weights["weights.0"].count_nonzero()) for weights in watch.weights]
    assert [n < 91 for n in live] == [step in (2, 3, 4) or step >= 7 for step in range(1, STEPS + 1)]


def test_rigl_grows_where_the_gradient_is_largest_and_exchanges_ever_fewer(make_trainer):
    callback = RiglSparsity(0.3, every_n_steps=4, drop=0.5, until=STEPS)
    _, watch = trained(callback, make_trainer)
    assert [callback.share(step) for step in (0, 6, 12)] == pytest.approx([0.5, 0.25, 0.0])

    scores: dict[int, Tensor] = {}

    class Note(Callback):
        def on_after_backward(self, trainer, pl_module) -> None:
            scores[trainer.global_step + 1] = pl_module.weights[0].grad.abs().clone()

    module = Awkward()
    make_trainer(RiglSparsity(0.3, every_n_steps=4, drop=0.5, until=STEPS), Note(), max_steps=STEPS).fit(module)
    for step in (4, 8):
        before, after = watch.masks[step - 2]["weights.0"], watch.masks[step - 1]["weights.0"]
        grown = after & ~before
        assert grown.any()
        assert scores[step][grown].min() >= scores[step][~before & ~after].max()
    assert torch.equal(watch.masks[10]["weights.0"], watch.masks[11]["weights.0"])


def test_the_penalty_alone_empties_entries_rows_or_columns_and_the_locked_support_recovers(make_trainer):
    for group, dim, strength in (("entry", None, 2.0), ("row", 1, 3.3), ("column", 0, 3.3)):
        callback = ProximalSparsity(strength=strength, group=group, until=0.5)
        _, watch = trained(callback, make_trainer)
        alive = [weights["weights.0"] != 0 for weights in watch.weights]
        assert 0 < alive[-1].sum() < 91
        assert all(torch.equal(mask, alive[5]) for mask in alive[6:])
        if dim is not None:
            assert (alive[-1].all(dim) == alive[-1].any(dim)).all()


def test_a_budget_bounds_what_the_penalty_leaves(make_trainer):
    for callback in (ProximalSparsity(0.2, strength=0.5), ProximalSparsity(Schedule(to=0.2, end=0.5), strength=0.5)):
        _, watch = trained(callback, make_trainer)
        assert all(
            w["weights.0"].count_nonzero() <= callback.targets(s)["weights.0"]
            for s, w in enumerate(watch.weights, start=1)
        )


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 2), (3, 3)])
def test_every_group_has_exactly_n_of_m(n, m, make_mlp, make_trainer):
    module = make_mlp()
    rules = [Rule("network.3.weight", density=None)] if m == 3 else []
    if m == 3:
        module.network[1] = nn.Linear(64, 18)
        module.network[3] = nn.Linear(18, 2)
        rules = [Rule("network.1.weight", density=None)]
    callback = SemiStructuredSparsity(n, m, rules)
    make_trainer(callback, max_steps=4).fit(module)
    for name in callback.targets(1):
        live = module.get_parameter(name).detach().unflatten(1, (-1, m)) != 0
        assert (live.sum(-1) == n).all()


def test_groups_take_their_largest_and_ties_the_first():
    weight = torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    assert n_of_m(weight, 2, 4).int().tolist() == [[1, 0, 1, 0, 1, 1, 0, 0]]
    kernel = torch.arange(16.0).reshape(1, 4, 2, 2)
    assert n_of_m(kernel, 1, 2).flatten().nonzero().flatten().tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    with pytest.raises(SparselitError, match=r"multiple of it, got \[2, 6\]"):
        n_of_m(torch.ones(2, 6), 2, 4)


def test_a_tensor_without_groups_is_named_with_the_rule_that_helps():
    with pytest.raises(SparselitError, match=r"weights\.0 of shape \(7, 13\) has no groups of 4.*density: null"):
        SemiStructuredSparsity().validate(Awkward(), 10)
    with pytest.raises(SparselitError, match="2 of 4 is the density of every tensor"):
        SemiStructuredSparsity(rules=[Rule("*", density=0.1)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnnealedSparsity(0.1, grads="sparse"), "grads must be dense or masked, got 'sparse'"),
        (lambda: AnnealedSparsity(0.1, distribution="best"), "distribution must be uniform, er or erk, got 'best'"),
        (lambda: GradualPruning(0.1, every_n_steps=0), "every_n_steps must be at least 1, got 0"),
        (lambda: AcdcSparsity(0.1, every_n_steps=0), "every_n_steps must be at least 1, got 0"),
        (lambda: AcdcSparsity(0.1, begin=-1), "begin must be a fraction .* got -1"),
        (lambda: ProximalSparsity(strength=-1), "strength must be at least 0, got -1"),
        (lambda: ProximalSparsity(group="cell"), "group must be entry, row or column, got 'cell'"),
        (lambda: ProximalSparsity(until=-1), "until must be a fraction .* got -1"),
        (lambda: SemiStructuredSparsity(5, 4), r"n must lie in \[1, m\], got n 5 and m 4"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(SparselitError, match=message):
        make()


def test_moments_are_read_as_documented():
    assert [steps(m, 200) for m in (0, 0.5, 1, 30)] == [0, 100, 200, 30]
