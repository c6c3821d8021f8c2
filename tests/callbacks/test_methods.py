"""What each method does that others do not; what all of them owe is in ``test_every_method.py``."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning.pytorch import Callback
from sparselit.callbacks import (
    AcdcSparsity,
    AnnealedSparsity,
    GradualPruning,
    OneShotPruning,
    ProximalSparsity,
    RiglSparsity,
    SemiStructuredSparsity,
    SnipSparsity,
)
from torch import Tensor, nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule, n_of_m
from sparselit.sparsity.schedule import steps
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import STEPS, Awkward, trained

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
