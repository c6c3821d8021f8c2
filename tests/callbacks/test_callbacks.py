"""The callbacks on modules that know nothing of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning.pytorch import Callback
from sparselit.callbacks import AnnealedSparsity, DynamicSparsity, SparsityMonitor, StaticSparsity

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule, density_table, total


class Watch(Callback):
    """Notes the live entries of every matrix after every batch, and the metrics logged so far."""

    def __init__(self) -> None:
        self.counts: list[dict[str, int]] = []
        self.alive: list[dict[str, torch.Tensor]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        alive = {n: p != 0 for n, p in pl_module.named_parameters() if p.ndim >= 2}
        self.alive.append(alive)
        self.counts.append({n: int(mask.sum()) for n, mask in alive.items()})
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def test_training_sparse_learns_something(make_mlp, make_trainer):
    module = make_mlp(lr=0.03)
    images, labels = module.train_dataloader().dataset.tensors
    make_trainer(AnnealedSparsity(Schedule(to=0.2, end=0.6)), max_steps=60, max_epochs=-1).fit(module)
    assert (module.network(images).argmax(-1) == labels).float().mean() > 0.9


def test_annealed_weights_may_come_back_to_life_and_static_ones_may_not(make_mlp, make_trainer):
    def live_entries(callback) -> list[torch.Tensor]:
        watch = Watch()
        make_trainer(callback, watch, max_steps=12).fit(make_mlp(lr=0.2))
        return [masks["network.1.weight"] for masks in watch.alive]

    annealed = live_entries(AnnealedSparsity(0.1))
    assert (annealed[-1] & ~annealed[0]).any()
    for static in (StaticSparsity(0.1), StaticSparsity(0.1, mask="magnitude")):
        assert all(torch.equal(mask, static.masks["network.1.weight"]) for mask in live_entries(static))


def test_the_random_mask_depends_on_the_seed_alone(make_mlp, make_trainer):
    masks = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 3)):
        callback = StaticSparsity(0.1, seed=seed)
        module = make_mlp()
        torch.manual_seed(global_seed)
        make_trainer(callback, max_steps=1).fit(module)
        masks.append(callback.masks["network.1.weight"])
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_dynamic_sparsity_moves_its_share_until_the_end_of_growth(make_mlp, make_trainer):
    masks: list[torch.Tensor] = []

    class Note(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            masks.append(callback.masks["network.1.weight"].clone())

    callback = DynamicSparsity(0.1, every_n_steps=3, drop=0.25, until=8)
    make_trainer(callback, Note(), max_steps=12).fit(make_mlp())
    k = int(masks[0].sum())
    moved = [int((b & ~a).sum()) for a, b in itertools.pairwise(masks)]  # after steps 2, 3, ...
    expected = int(0.25 * k + 0.5)
    assert moved == [0, expected, 0, 0, expected, 0, 0, 0, 0, 0, 0]
    assert all(int(mask.sum()) == k for mask in masks)


def test_floors_hold_in_every_method(make_mlp, make_trainer):
    rules = [Rule("network.1.weight", floor=4), Rule("network.3.weight", floor=2, per="column", density=1.0)]
    for callback in (AnnealedSparsity(0.07, rules), StaticSparsity(0.07, rules), DynamicSparsity(0.07, rules)):
        module = make_mlp()
        make_trainer(callback, max_steps=5).fit(module)
        alive = module.network[1].weight != 0
        assert alive.sum() == int(0.07 * 1024 + 0.5)
        assert (alive.sum(1) >= 4).all()
        assert (module.network[3].weight != 0).all()


def test_methods_with_a_fixed_number_of_weights_refuse_a_schedule(make_mlp):
    for kind in (StaticSparsity, DynamicSparsity):
        with pytest.raises(SparselitError, match=r"network\.1\.weight: its density must be a number"):
            kind(Schedule(to=0.1)).validate(make_mlp(), 100)


def test_fractions_without_a_length_are_refused_before_the_run(make_mlp, make_trainer):
    for callback in (AnnealedSparsity(Schedule(to=0.1)), DynamicSparsity(0.1)):
        with pytest.raises(SparselitError, match=r"set trainer\.max_steps"):
            callback.validate(make_mlp(), -1)
        with pytest.raises(SparselitError, match=r"set trainer\.max_steps"):
            make_trainer(callback, max_epochs=-1).fit(make_mlp())
    AnnealedSparsity(Schedule(to=0.1, begin=10, end=20)).validate(make_mlp(), -1)
    AnnealedSparsity(0.1).validate(make_mlp(), -1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnnealedSparsity(0), r"^density must lie in \(0, 1\], got 0$"),
        (lambda: AnnealedSparsity(2), r"^density must lie in \(0, 1\], got 2$"),
        (lambda: AnnealedSparsity("abc"), r"^density must lie in \(0, 1\], got 'abc'$"),
        (lambda: AnnealedSparsity(0.1, moments="drop"), "moments must be keep, mask or reset, got 'drop'"),
        (lambda: StaticSparsity(0.1, mask="top"), "mask must be random or magnitude, got 'top'"),
        (lambda: DynamicSparsity(0.1, every_n_steps=0), "every_n_steps must be at least 1, got 0"),
        (lambda: DynamicSparsity(0.1, drop=1.5), r"drop must lie in \[0, 1\], got 1\.5"),
        (lambda: DynamicSparsity(0.1, until=-1), "until must be a fraction .* got -1"),
        (lambda: SparsityMonitor(every_n_steps=0), "every_n_steps must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(SparselitError, match=message):
        make()


def test_the_monitor_counts_with_and_without_a_sparsifier(module, make_trainer):
    for callbacks, dense in (((), True), ((AnnealedSparsity(0.05),), False)):
        watch = Watch()
        make_trainer(*callbacks, SparsityMonitor(None), watch, max_steps=3).fit(module)
        for counts, logged in zip(watch.counts, watch.logged, strict=True):
            assert set(counts) == {k.removeprefix("dead_rows/") for k in logged if k.startswith("dead_rows/")}
            for name, count in counts.items():
                parameter = module.get_parameter(name)
                assert logged[f"density/{name}"] == pytest.approx(count / parameter.numel())
                assert (logged[f"density/{name}"] == 1) == dense
        for name in watch.counts[-1]:
            weight = module.get_parameter(name)
            alive = (weight.reshape(*weight.shape[:2], -1) != 0).any(-1)
            assert watch.logged[-1][f"dead_rows/{name}"] == sum(not any(row) for row in alive.tolist())
            assert watch.logged[-1][f"dead_columns/{name}"] == sum(not any(row) for row in alive.T.tolist())


def test_the_monitor_keeps_its_own_cadence(make_mlp, make_trainer):
    measured = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            measured.append("density/network.1.weight" in trainer.callback_metrics)

    monitor = SparsityMonitor(every_n_steps=3)
    make_trainer(monitor, Count(), max_steps=4, log_every_n_steps=50).fit(make_mlp())
    assert measured == [False, False, True, True]


def test_the_monitor_measures_a_step_once_under_accumulation_and_the_last_step_too(make_mlp, make_trainer):
    monitor, measured = SparsityMonitor(every_n_steps=2), []
    measure = monitor._measure
    monitor._measure = lambda row, weight: measured.append((trainer.global_step, row.name)) or measure(row, weight)
    trainer = make_trainer(monitor, max_steps=5, accumulate_grad_batches=2)
    trainer.fit(make_mlp())
    assert [step for step, name in measured if name == "network.1.weight"] == [2, 4, 5]


def test_total_and_target_density_are_logged(make_mlp, make_trainer):
    watch, callback = Watch(), AnnealedSparsity(Schedule(to=0.1, begin=0, end=6))
    module = make_mlp()
    make_trainer(callback, watch, max_steps=8).fit(module)
    for step, logged in enumerate(watch.logged, start=1):
        assert logged["density/total"] == pytest.approx(callback.density_at(step))
        assert logged["density/target"] == pytest.approx(callback.density_at(step))
    weights = {n: p for n, p in module.named_parameters() if p.ndim >= 2}
    assert total(density_table(weights)).density == pytest.approx(watch.logged[-1]["density/total"])


def test_the_monitor_tells_threshold_churn_and_what_ever_lived_also_after_a_resumption(make_mlp, make_trainer):
    monitor, watch = SparsityMonitor(None), Watch()
    rules = [Rule("network.1.*", density=0.2)]
    module = make_mlp(lr=0.1)
    make_trainer(AnnealedSparsity(Schedule(to=0.1, end=6), rules), monitor, watch, max_steps=8).fit(module)
    name, ever = "network.1.weight", torch.zeros(16, 64, dtype=torch.bool)
    for step, logged in enumerate(watch.logged):
        alive = watch.alive[step][name]
        grown = alive & ~watch.alive[step - 1][name] if step else torch.zeros_like(alive)
        ever |= alive
        assert logged[f"churn/{name}"] == pytest.approx(int(grown.sum()) / int(alive.sum()))
        assert logged[f"ever_live/{name}"] == pytest.approx(float(ever.float().mean()))
    weight = module.network[1].weight.detach()
    assert watch.logged[-1][f"threshold/{name}"] == pytest.approx(float(weight[weight != 0].abs().min()))
    assert watch.logged[-1]["rule_density/network.1.*"] == pytest.approx(0.2, abs=0.002)
    assert watch.logged[-1]["rule_target/network.1.*"] == watch.logged[-1]["rule_density/network.1.*"]
    other = SparsityMonitor()
    other.load_state_dict(monitor.state_dict())
    measured = [m._turnover[name].observe(torch.ones(16, 64)) for m in (monitor, other)]
    assert measured == [pytest.approx(1 - float(alive.float().mean()))] * 2
    assert other._turnover[name].ever == 1
