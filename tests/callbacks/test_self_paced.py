"""Annealing that waits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from sparselit.callbacks import AnnealedSparsity, SelfPacedSparsity
from sparselit.tasks import ModularAddition, Parity

from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.sparsity.pace import SLOWEST, Pace
from sparselit.sparsity.schedule import Schedule
from sparselit.sparsity.snapshot import restore_, take
from sparselit.training.held_out import on_selection

STEPS = 16


def test_while_the_loss_is_low_the_density_is_the_plain_schedule(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    schedule = Schedule(to=0.1, begin=0.0, end=0.5)
    modules = [make_mlp(), make_mlp()]
    for module, callback in zip(
        modules, (AnnealedSparsity(schedule), SelfPacedSparsity(schedule, loss_below=1e9)), strict=True
    ):
        make_trainer(callback, max_steps=STEPS).fit(module)
    live = [{n: int(p.count_nonzero()) for n, p in module.named_parameters() if p.ndim > 1} for module in modules]
    assert live[0] == live[1]
    assert live[1]["network.1.weight"] == round(0.1 * 16 * 64)


def test_while_the_loss_is_high_the_density_stands_still_and_the_end_says_so(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    module, callback = make_mlp(lr=0.0), SelfPacedSparsity(Schedule(to=0.1), loss_below=1e-9)
    with pytest.warns(UserWarning, match=r"the density stopped at 1: the running loss was above 1e-09 for 16 of 16"):
        make_trainer(callback, max_steps=STEPS).fit(module)
    assert callback.pace.clock == 0
    assert module.network[1].weight.count_nonzero() == 16 * 64


def test_the_running_loss_decides_and_is_part_of_the_state(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    callback = SelfPacedSparsity(Schedule(to=0.5), loss_below=0.5, memory=0.5)
    seen: list[tuple[float, int]] = []

    class Loss(type(make_mlp())):  # type: ignore[misc]
        """Losses 1 and 0.01 in turn: the running loss stays near 0.5 and the last one is high every second step."""

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append((1.0 if batch_idx % 2 else 0.01, callback.pace.clock))
            return super().training_step(batch, batch_idx) * 0 + seen[-1][0]

    made = make_mlp()
    made.__class__ = Loss
    with pytest.warns(UserWarning, match="the density stopped"):
        make_trainer(callback, max_steps=STEPS).fit(made)
    running, clock = None, 0
    for loss, at in seen:
        assert at == clock
        running = loss if running is None else 0.5 * running + 0.5 * loss
        clock += max(loss, running) < 0.5
    assert 0 < clock < STEPS
    other = SelfPacedSparsity(Schedule(to=0.5))
    other.load_state_dict(callback.state_dict())
    assert (other.pace.clock, other.pace.running_loss) == (callback.pace.clock, pytest.approx(running))
    assert callback.pace.clock == clock - 1, "at the end, the last state that was good came back"


@pytest.mark.parametrize("accumulated", [1, 2, 4])
def test_under_accumulation_a_step_is_judged_once_by_the_mean_of_its_batches(
    accumulated: int, make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    callback = SelfPacedSparsity(Schedule(to=0.5, end=100), loss_below=1.0, memory=0.0, spike=None, patience=None)

    class Loss(type(make_mlp())):  # type: ignore[misc]
        """Each step's mean is 0.9 and 1.1 in turn; batches of one step differ by 0.4."""

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            mean = 1.1 if self.trainer.global_step % 2 else 0.9
            apart = 0.4 * (batch_idx % accumulated - (accumulated - 1) / 2)
            return super().training_step(batch, batch_idx) * 0 + mean + apart

    made = make_mlp()
    made.__class__ = Loss
    seen = []
    note = LambdaCallback(on_train_batch_end=lambda *_: seen.append((callback.pace.clock, callback.pace.running_loss)))
    with pytest.warns(UserWarning, match=r"above 1\.0 for 1 of 3 steps"):
        make_trainer(callback, note, max_steps=3, accumulate_grad_batches=accumulated).fit(made)
    after_steps = seen[accumulated - 1 :: accumulated]
    assert after_steps == [(1, pytest.approx(0.9)), (1, pytest.approx(1.1)), (2, pytest.approx(0.9))]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss_below", 0.0),
        ("memory", 1.0),
        ("memory", -0.1),
        ("shrink", -1),
        ("spike", 1.0),
        ("patience", 0),
        ("finish", -1),
        ("hold", 1.5),
        ("snapshots", 0),
        ("held_out", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(SparselitError, match=key):
        SelfPacedSparsity(0.5, **{key: value})


# -- turning back -----------------------------------------------------------------------------------------------------


def breaking(make_mlp: Callable[..., Any], *steps: int) -> Any:
    """A module that loses its task in some steps: the loss it reports is 9 there, and near 0 elsewhere."""
    module = make_mlp()

    class Breaking(type(module)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            real = super().training_step(batch, batch_idx)
            return real * 0.01 + (9.0 if self.trainer.global_step in steps else 0.0)

    module.__class__ = Breaking
    return module


class Track(Callback):
    """Weights, moments and pace after every batch."""

    def __init__(self, sparsity: SelfPacedSparsity) -> None:
        self.sparsity = sparsity
        self.weights: list[torch.Tensor] = []
        self.moments: list[torch.Tensor] = []
        self.clocks: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 0:
            note = lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"])  # noqa: E731
            trainer.optimizers[0].register_step_pre_hook(note)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        weight = pl_module.network[1].weight
        self.weights.append(weight.detach().clone())
        self.moments.append(trainer.optimizers[0].state[weight].get("exp_avg", torch.zeros(())).clone())
        self.clocks.append(self.sparsity.pace.clock)


def test_after_a_rise_weights_optimizer_and_density_are_those_of_the_snapshot_and_all_goes_slower(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    sparsity = SelfPacedSparsity(Schedule(to=0.1, end=10), loss_below=1.0, memory=0.0)
    track = Track(sparsity)
    module = breaking(make_mlp, 5)
    with pytest.warns(UserWarning, match="with 1 rollbacks after a rise and 0 after a standstill"):
        make_trainer(sparsity, track, max_steps=9).fit(module)
    assert torch.equal(track.weights[5], track.weights[4])
    assert torch.equal(track.moments[5], track.moments[4])
    assert track.clocks == pytest.approx([1, 2, 3, 4, 5, 4, 4.7, 5.4, 6.1])
    assert track.rates == pytest.approx([0.01] * 6 + [0.007] * 3)
    assert module.optimizers(use_pl_optimizer=False).param_groups[0]["lr"] == 0.01
    assert int(module.network[1].weight.count_nonzero()) == sparsity.budgets[0].k(5.4, 9)


@pytest.mark.parametrize("shape", ["linear", "cubic", "exponential"])
def test_every_checkpoint_has_exactly_the_budget_of_its_clock_also_after_a_rollback(
    shape: str, make_mlp: Callable[..., Any], make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    sparsity = SelfPacedSparsity(Schedule(to=0.001, end=10, shape=shape), loss_below=1.0, memory=0.0)
    cuts: list[float] = []  # where on its clock each step's weights were cut

    class Save(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            self.clock, self.rollbacks = sparsity.pace.clock, sparsity.pace.rollbacks

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            back = sparsity.pace.rollbacks > self.rollbacks
            cuts.append(sparsity.pace.clock if back else self.clock)
            trainer.save_checkpoint(tmp_path / f"{len(cuts)}.ckpt")

    with pytest.warns(UserWarning, match="with 2 rollbacks"):
        make_trainer(sparsity, Save(), max_steps=12).fit(breaking(make_mlp, 5, 8))
    for step, clock in enumerate(cuts, start=1):
        tensors = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)["state_dict"]
        for budget in sparsity.budgets:
            assert int(tensors[budget.name].count_nonzero()) == budget.k(clock, 12), (step, budget.name)  # type: ignore[arg-type]


def test_a_clock_that_stands_still_for_too_long_goes_back_too(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    sparsity = SelfPacedSparsity(Schedule(to=0.1, end=10), loss_below=1.0, memory=0.0, spike=None, patience=3)
    track = Track(sparsity)
    with pytest.warns(UserWarning, match="with 0 rollbacks after a rise and 1 after a standstill"):
        make_trainer(sparsity, track, max_steps=9).fit(breaking(make_mlp, 3, 4, 5, 6))
    assert track.clocks == pytest.approx([1, 2, 3, 3, 3, 3, 2, 2.7, 3.4])


def test_a_model_that_is_broken_at_the_end_is_replaced_by_the_last_snapshot_that_was_not(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    sparsity = SelfPacedSparsity(Schedule(to=0.1, end=20), loss_below=1.0, memory=0.0, spike=None, patience=None)
    track = Track(sparsity)
    module = breaking(make_mlp, 6, 7, 8)
    with pytest.warns(UserWarning, match=r"the density stopped at 0\.\d+: the running loss was above 1.0 for 3 of 9"):
        make_trainer(sparsity, track, max_steps=9).fit(module)
    assert torch.equal(module.network[1].weight, track.weights[5])
    assert int(module.network[1].weight.count_nonzero()) == sparsity.targets(0)["network.1.weight"]


@pytest.mark.parametrize("bound", [1e9, 1e-9])
def test_a_run_never_ends_silently_in_a_model_without_its_task(bound: float, make_trainer: Callable[..., Any]) -> None:
    data = Parity(length=6, batch_size=8, discovery=8, selection=16, report=8)
    module = SparseTransformer(
        vocab_size=data.vocab_size, max_length=data.max_length, n_layers=1, d_model=8, n_heads=2, lr=0.0
    )
    sparsity = SelfPacedSparsity(Schedule(to=0.1, end=4), loss_below=bound, finish=8, hold=0.99)
    what = "the density was reached" if bound > 1 else "the density stopped at 1"
    with pytest.warns(UserWarning, match=rf"{what}: .*; it does not hold: [\d.]+% on the selection split"):
        make_trainer(sparsity, max_steps=10, limit_val_batches=0).fit(module, data)


def test_a_run_that_cannot_hold_gives_up_at_the_slowest_pace() -> None:
    pace, verdicts = Pace(), []
    for step in range(60):
        arguments = {"below": 1.0, "memory": 0.0, "spike": 2.0, "patience": 5, "can_return": step > 0, "at_end": False}
        verdicts.append(pace.observe(9.0 if step % 2 else 0.1, **arguments))
        if verdicts[-1] in ("spike", "stall", "give up"):
            pace.back_to(0.0, 0.1, verdicts[-1])
    assert verdicts[: verdicts.index("give up")].count("spike") == 8
    assert verdicts.count("give up") == 1
    assert "spike" in verdicts[verdicts.index("give up") :], "it still goes back when the loss rises"
    assert pace.given_up
    assert pace.lr_factor == SLOWEST
    clock = pace.clock
    assert pace.observe(0.1, 1.0, 0.0, 2.0, 5, True, False) == "fall"
    assert pace.clock == clock
    assert Pace().observe(math.nan, 1.0, 0.9, 2.0, 5, True, False) == "spike"


def test_a_high_loss_on_held_out_prompts_stops_the_clock_and_a_much_higher_one_goes_back() -> None:
    for held_out, verdict in ((0.5, "fall"), (1.5, "wait"), (2.5, "spike"), (math.inf, "wait"), (math.nan, "wait")):
        pace = Pace()
        assert pace.observe(0.1, 1.0, 0.0, 2.0, 5, True, False, held_out) == verdict
        assert pace.clock == (verdict == "fall")


def test_where_nothing_is_learned_the_run_is_to_begin_again_once() -> None:
    def first(losses: Any) -> int | None:
        """Step of the first such verdict."""
        pace = Pace()
        for step, loss in enumerate(losses):
            if pace.observe(loss, 0.1, 0.0, 4.0, 5, False, False) == "begin again":
                pace.begin_again()
                assert (pace.clock, pace.running_loss, pace.speed, pace.lr_factor) == (0, None, 1, 1)
                again = [pace.observe(0.7, 0.1, 0.0, 4.0, 5, False, False) for _ in range(20)]
                assert set(again) == {"wait"}
                return step
        return None

    assert first([0.7] * 20) == 6
    assert first([0.9**step for step in range(20)]) is None
    assert first([0.05] * 20) is None, "by heart is learned too: it is the held-out loss that is high"


def test_the_locked_support_never_grows_and_is_not_shrunk(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    sparsity = SelfPacedSparsity(Schedule(to=0.1, end=4), loss_below=9.0, shrink=1.0, finish=8)
    track = Track(sparsity)
    make_trainer(sparsity, track, max_steps=14).fit(make_mlp())
    assert sparsity.locked
    alive = [weight != 0 for weight in track.weights]
    assert all(not (after & ~before).any() for before, after in itertools.pairwise(alive[8:]))
    assert alive[-1].any()
    assert track.weights[-1].abs().sum() != track.weights[8].abs().sum()


@pytest.mark.parametrize("shape", [(7, 13), (64, 64)])
def test_a_snapshot_brings_everything_back_bit_for_bit(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(*shape)
    with torch.no_grad():
        module.weight.masked_fill_(torch.rand_like(module.weight) > 0.05, 0.0)
    optimizer = torch.optim.Adam(module.parameters())

    def step() -> None:
        optimizer.zero_grad()
        module(torch.ones(2, shape[0])).square().mean().backward()
        optimizer.step()

    step()
    with torch.no_grad():
        module.weight.masked_fill_(torch.rand_like(module.weight) > 0.05, 0.0)
    saved = take(module, [optimizer])
    step()
    first = module.weight.detach().clone()
    restore_(saved, module, [optimizer])
    step()
    assert torch.equal(module.weight, first)
    restore_({**saved, "optimizers": []}, module, [optimizer])
    assert not optimizer.state[module.weight]["exp_avg"].any()


# -- held-out prompts, and a penalty that is too much ------------------------------------------------------------------


def small(data: ModularAddition) -> SparseTransformer:
    torch.manual_seed(0)
    sizes = {"vocab_size": data.vocab_size, "max_length": data.max_length, "n_layers": 1, "d_model": 64, "n_heads": 4}
    return SparseTransformer(**sizes, lr=0.003, decay="none", norm_eps=0.01, init_std=0.1)


@pytest.mark.parametrize("held_out", [None, 5])
def test_what_is_learned_by_heart_loses_weights_only_where_nobody_looks_at_held_out_prompts(
    held_out: int | None, make_trainer: Callable[..., Any]
) -> None:
    data = ModularAddition(modulus=17, batch_size=16, discovery=8, selection=16)
    model = small(data)
    sparsity = SelfPacedSparsity(Schedule(to=0.5, end=1000), loss_below=0.3, held_out=held_out)
    with pytest.warns(UserWarning, match="the density stopped"):
        make_trainer(sparsity, max_steps=250, max_epochs=-1, limit_val_batches=0).fit(model, data)
    assert sparsity.pace.running_loss < 0.3
    assert sparsity.snapshots == [] if held_out else sparsity.snapshots


def test_the_look_at_the_selection_split_is_what_it_says_and_leaves_no_trace(make_trainer: Callable[..., Any]) -> None:
    data = ModularAddition(modulus=17, batch_size=8, discovery=8, selection=20)
    model, split = small(data).train(), data.split("selection")
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, data)
    before = torch.get_rng_state()
    score = on_selection(trainer, model.train())
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    logits = model.eval()(split.tokens, split.length - 1).detach()
    assert score is not None
    assert score.accuracy == pytest.approx(float((logits.argmax(-1) == split.answer).float().mean()))
    assert score.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.answer)), rel=1e-5)
    few, batch = on_selection(trainer, model, prompts=1), next(iter(data.val_dataloader()))
    logits = model(batch.tokens, batch.length - 1).detach()
    assert few is not None
    assert few.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch.answer)), rel=1e-5)


def test_a_penalty_under_which_nothing_is_learned_waits_until_it_is(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    module = breaking(make_mlp, *range(12))  # nothing is learned before step 12
    sparsity = SelfPacedSparsity(Schedule(to=0.9, end=100), loss_below=1.0, memory=0.0, shrink=0.2, patience=5)
    start = module.network[1].weight.detach().clone()
    track = Track(sparsity)
    with pytest.warns(UserWarning, match="the density stopped"):
        make_trainer(sparsity, track, max_steps=16).fit(module)
    dead = [int((weight == 0).sum()) for weight in track.weights]
    assert sparsity.pace.begun_again
    assert dead[5] > 0, "the penalty acts from the first step"
    assert torch.equal(track.weights[6], start), "six steps without a lower loss: back to the first weights"
    assert dead[6:12] == [0] * 6, "no penalty until something is learned"
    assert dead[14] > 10, "and then there is one again"
