"""The base of the sparsifying callbacks: when it projects, what it remembers, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from sparselit.callbacks import (
    AnnealedSparsity,
    DynamicSparsity,
    StaticSparsity,
)
from torch import Tensor, nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import QUIET, Regression, fit


class Count(Sparsifier):
    """Keeps k by magnitude and notes every call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[int] = []

    def update(self, tensors, step):
        self.calls.append(step)
        return AnnealedSparsity.update(self, tensors, step)


class Watch(Callback):
    """Checks after every batch that each tensor has the number of live entries that the sparsifier names."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        (sparsifier,) = [c for c in trainer.callbacks if isinstance(c, Sparsifier)]
        for name, k in sparsifier.targets(sparsifier.step).items():
            assert pl_module.get_parameter(name).count_nonzero() == k
        self.steps.append(sparsifier.step)


def test_the_projection_runs_once_per_applied_step_under_accumulation():
    callback, watch = Count(Schedule(to=0.2, end=1.0)), Watch()
    fit(Regression(), callback, watch, max_steps=6, accumulate_grad_batches=3)
    assert callback.calls == [0, 1, 2, 3, 4, 5, 6]  # 0 is the one before the first step
    assert watch.steps[:6] == [0, 0, 1, 1, 1, 2]


class Adversaries(Regression):
    """Two optimizers stepped by hand, the second every other batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers() if batch_idx % 2 else self.optimizers()[:1]:  # type: ignore[index]
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch_idx))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.5) for part in (self.first, self.second)]


def test_several_optimizers_stepped_by_hand_leave_exact_budgets():
    callback, watch = Count(Schedule(to=0.2, end=1.0)), Watch()
    trainer = fit(Adversaries(), callback, watch, max_steps=12)
    assert callback.step == trainer.global_step == 12
    assert watch.steps == [1, 3, 4, 6, 7, 9, 10, 12]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_mixed_precision_skips_is_not_counted(fused):
    class Overflowing(Regression):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if batch_idx in (2, 5) else loss

    callback, watch = Count(0.3), Watch()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    fit(Overflowing(fused=fused), callback, watch, max_steps=8, plugins=[precision])
    assert watch.steps == [1, 2, 2, 3, 4, 4, 5, 6]
    assert callback.calls == [0, 1, 2, 3, 4, 5, 6]


def test_hooks_are_removed_after_the_run_and_after_an_exception():
    class Breaking(Regression):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    for module, broken in ((Regression(), False), (Breaking(), True)):
        callback = Count(0.3)
        if broken:
            with pytest.raises(RuntimeError, match="broken"):
                fit(module, callback, max_steps=5)
        else:
            fit(module, callback, max_steps=5)
        assert not module.optimizers(use_pl_optimizer=False)._optimizer_step_post_hooks
        assert not callback._handles


def test_weights_that_blow_up_are_named():
    class Diverging(Regression):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (float("nan") if batch_idx == 3 else 1)

    with pytest.raises(SparselitError, match=r"first\.weight holds NaN or infinity after optimizer step 4"):
        fit(Diverging(), AnnealedSparsity(0.3), max_steps=8)


def test_bfloat16_modules_keep_exact_budgets():
    module = Regression().to(torch.bfloat16)
    module.loss = lambda seed: module.second(module.first(torch.ones(4, 8).bfloat16())).square().mean()
    fit(module, AnnealedSparsity(Schedule(to=0.1, end=8)), Watch(), max_steps=10)
    assert module.first.weight.dtype == torch.bfloat16


def test_tied_weights_are_projected_once():
    module = Regression()
    module.again = nn.Linear(8, 12)
    module.again.weight = module.first.weight
    callback = AnnealedSparsity(0.25)
    fit(module, callback, Watch(), max_steps=3)
    assert [budget.name for budget in callback.budgets] == ["first.weight", "second.weight"]
    assert module.again.weight.count_nonzero() == 24


@pytest.mark.parametrize("moments", ["keep", "mask", "reset"])
def test_the_moments_of_dead_and_of_grown_entries_follow_the_policy(moments):
    module = Regression(lr=0.5)
    found: list[tuple[int, int]] = []

    class Look(Callback):
        before: Tensor | None = None

        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            weight = pl_module.first.weight
            state = trainer.optimizers[0].state[weight]
            alive = weight != 0
            if self.before is not None:
                grown = alive & ~self.before
                found.append(
                    (int(state["exp_avg"][~alive].count_nonzero()), int(state["exp_avg_sq"][grown].count_nonzero()))
                )
                assert grown.any() or not found[-1][1]
            assert state["exp_avg"][alive & self.before if self.before is not None else alive].count_nonzero() > 0
            self.before = alive

    fit(module, AnnealedSparsity(0.3, moments=moments), Look(), max_steps=15)
    dead, grown = (sum(column) for column in zip(*found, strict=True))
    assert (dead == 0) == (moments == "mask")
    assert (grown == 0) == (moments == "reset")


def test_every_checkpoint_holds_exactly_the_budget_and_ordinary_tensors(tmp_path):
    callback = AnnealedSparsity(Schedule(to=0.05, end=0.8))
    saved = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
    fit(Regression(), saved, callback, max_steps=12, enable_checkpointing=True)
    for step in (3, 6, 9, 12):
        state = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert state["state_dict"].keys() == Regression().state_dict().keys()
        assert {name: int(state["state_dict"][name].count_nonzero()) for name in callback.targets(step)} == (
            callback.targets(step)
        )
        own = state["callbacks"]["AnnealedSparsity"]
        assert own.pop("course")["total_steps"] == callback.total_steps
        assert own == {"step": step, "kept": callback.targets(step), "masks": {}}


def test_two_sparsifiers_with_different_rules_share_a_run():
    module = Regression()
    first = AnnealedSparsity(0.1, [Rule("second.*", density=None)])
    second = AnnealedSparsity(Schedule(to=0.5, end=4), [Rule("first.*", density=None)])
    assert first.state_key != second.state_key
    trainer = fit(module, first, second, max_steps=6, log_every_n_steps=1)
    assert module.first.weight.count_nonzero() == 10
    assert module.second.weight.count_nonzero() == 24
    assert float(trainer.callback_metrics["density/total"]) == pytest.approx(34 / 144)
    assert float(trainer.callback_metrics["density/target"]) == pytest.approx(34 / 144)


def test_two_sparsifiers_of_one_tensor_are_refused():
    with pytest.raises(SparselitError, match=r"both sparsify second\.weight"):
        fit(Regression(), AnnealedSparsity(0.1), StaticSparsity(0.1, [Rule("first.*", density=None)]), max_steps=2)


def test_a_run_in_epochs_takes_its_length_from_the_dataloader():
    callback = AnnealedSparsity(Schedule(to=0.1, end=1.0))
    fit(Regression(), callback, Watch(), max_epochs=3, accumulate_grad_batches=4)
    assert callback.total_steps == callback.step == 9  # 10 batches, four to a step, the rest of an epoch too


def test_the_density_is_known_while_the_optimizers_are_made():
    seen = []

    class Sharkfin(Regression):
        def configure_optimizers(self):
            (callback,) = [c for c in self.trainer.callbacks if isinstance(c, Sparsifier)]
            seen.append([callback.density_at(step) for step in (0, 5, 10)])
            return super().configure_optimizers()

    callback = AnnealedSparsity(Schedule(to=0.25, end=1.0))
    fit(Sharkfin(), callback, max_steps=10)
    assert seen == [pytest.approx([1.0, 0.625, 0.25])]
    assert callback.density_now == 0.25


def test_parameters_made_in_configure_model_are_sparsified():
    class Late(Regression):
        def configure_model(self):
            self.third = nn.Linear(4, 4)

    callback = AnnealedSparsity(0.5, [Rule("third.weight", density=0.25)])
    module = Late()
    fit(module, callback, max_steps=2)
    assert module.third.weight.count_nonzero() == 4


def test_validation_alone_needs_no_plan():
    class Validated(Regression):
        def validation_step(self, batch, batch_idx):
            pass

        def val_dataloader(self):
            return self.train_dataloader()

    callback = Count(0.3)
    Trainer(**QUIET, callbacks=[callback]).validate(Validated(), verbose=False)
    assert callback.calls == []
    with pytest.raises(SparselitError, match="no plan before"):
        _ = callback.density_now


def test_a_second_fit_of_the_same_trainer_goes_on_and_a_new_one_starts_anew():
    callback = DynamicSparsity(0.3, every_n_steps=2, until=100)
    module = Regression()
    trainer = fit(module, callback, max_steps=5)
    masks = dict(callback.masks)
    trainer.fit_loop.epoch_loop.max_steps = 5  # nothing left to do
    trainer.fit(module)
    assert callback.step == 5
    assert all(torch.equal(mask, callback.masks[name]) for name, mask in masks.items())
    fit(Regression(), callback, max_steps=1)
    assert callback.step == 1


def test_sharded_strategies_are_refused_in_one_line():
    class Pretend:
        strategy = FSDPStrategy()
        max_steps = 5

    with pytest.raises(SparselitError, match="single device or strategy: ddp, not FSDPStrategy") as error:
        AnnealedSparsity(0.1).setup(Pretend(), Regression(), "fit")  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def parse(tmp_path: Path, yaml: str, *arguments: str) -> Sparsifier:
    (tmp_path / "config.yaml").write_text(yaml)
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_lightning_class_args(Sparsifier, "sparsity", subclass_mode=True, required=False)
    config = parser.parse_args([f"--config={tmp_path / 'config.yaml'}", *arguments])
    return parser.instantiate(config).sparsity


MAPPING = """
sparsity:
  class_path: AnnealedSparsity
  init_args:
    density: {to: 0.02, begin: 0.01, end: 0.6, shape: exponential}
    rules: [{match: "*.norm*", density: null}, {match: "*.q.*", floor: 4}, {match: a, density: {to: 0.1, end: 1}}]
"""
NUMBER = "sparsity: {class_path: AnnealedSparsity, init_args: {density: 0.02}}"


@pytest.mark.parametrize(
    ("yaml", "arguments", "expected"),
    [
        (NUMBER, [], Schedule.constant(0.02)),
        (MAPPING, [], Schedule(to=0.02, begin=0.01, end=0.6, shape="exponential")),
        (MAPPING, ["--sparsity.density.to=0.01"], Schedule(to=0.01, begin=0.01, end=0.6, shape="exponential")),
        (MAPPING, ["--sparsity.density=0.01"], Schedule.constant(0.01)),
        (NUMBER, ["--sparsity.density.to=0.01"], Schedule(to=0.01)),
    ],
)
def test_yaml_and_command_line_give_numbers_or_schedules(tmp_path, yaml, arguments, expected):
    assert parse(tmp_path, yaml, *arguments).density == expected


def test_rules_come_from_yaml_as_dataclasses(tmp_path):
    assert parse(tmp_path, MAPPING).rules == [
        Rule("*.norm*", density=None),
        Rule("*.q.*", floor=4),
        Rule("a", density=Schedule(to=0.1)),
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sparsity.density=0", r"density must lie in \(0, 1\], got 0"),
        ("--sparsity.density=2", r"density must lie in \(0, 1\], got 2"),
        ("--sparsity.density.to=2", r"density\.to must lie in \(0, 1\], got 2"),
        ("--sparsity.density=abc", "Given value: abc"),
    ],
)
def test_the_parser_carries_the_message_about_a_bad_density(tmp_path, argument, message):
    with pytest.raises(Exception, match=message):  # the command line shortens the parser's message to this line
        parse(tmp_path, MAPPING, argument)
