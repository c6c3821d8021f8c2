"""The base of the sparsifying callbacks: when it projects, what it remembers, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from sparselit.callbacks import (
    AcdcSparsity,
    AnnealedSparsity,
    DynamicSparsity,
    GradualPruning,
    ProximalSparsity,
    RiglSparsity,
    SelfPacedSparsity,
    SnipSparsity,
    StaticSparsity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
}


class Regression(LightningModule):
    """Two layers on data that is a function of the step, so that a run can be continued anywhere."""

    def __init__(self, **optimizer: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 4)
        self.optimizer_arguments = {"lr": 0.1} | optimizer

    def loss(self, seed: int) -> Tensor:
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
        return (self.second(torch.tanh(self.first(x))) - x[:, :4].sin()).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), **self.optimizer_arguments)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(10))  # type: ignore[arg-type]


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


def fit(module: LightningModule, *callbacks: Callback, ckpt_path: Any = None, **kwargs: Any) -> Trainer:
    trainer = Trainer(**(QUIET | {"callbacks": list(callbacks), "max_epochs": -1} | kwargs))
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


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


SPARSIFIERS = {
    "annealed": lambda: AnnealedSparsity(Schedule(to=0.1, begin=0.1, end=0.8, shape="cubic")),
    "annealed-mask": lambda: AnnealedSparsity(Schedule(to=0.1, end=12), moments="mask"),
    "annealed-reset": lambda: AnnealedSparsity(Schedule(to=0.1, end=12), moments="reset"),
    "static": lambda: StaticSparsity(0.2),
    "dynamic": lambda: DynamicSparsity(0.2, every_n_steps=3, until=0.9),
    "rigl": lambda: RiglSparsity(0.2, every_n_steps=3, until=0.9),
    "snip": lambda: SnipSparsity(0.2),
    "gradual": lambda: GradualPruning(Schedule(to=0.1, end=0.8), every_n_steps=2),
    "acdc": lambda: AcdcSparsity(0.2, begin=2, every_n_steps=3),
    "proximal": lambda: ProximalSparsity(Schedule(to=0.2, end=0.4), until=0.5),
    "self-paced": lambda: SelfPacedSparsity(
        Schedule(to=0.05, end=8), loss_below=0.15, memory=0.2, spike=1.3, patience=2, shrink=0.05, finish=14
    ),
    "self-paced-again": lambda: SelfPacedSparsity(Schedule(to=0.05, end=8), loss_below=1e-6, shrink=5.0, patience=6),
}


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")  # the data follow the step
@pytest.mark.filterwarnings("ignore:the density stopped")
@pytest.mark.parametrize("make", SPARSIFIERS.values(), ids=SPARSIFIERS)
def test_a_resumed_run_ends_with_the_same_bytes(make, tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(*callbacks: Callback, ckpt_path: Any = None) -> Regression:
        module = Regression()
        if ckpt_path:  # nothing of the first run but the checkpoint is used
            nn.init.zeros_(module.first.weight)
        fit(module, make(), *callbacks, ckpt_path=ckpt_path, max_steps=16)
        return module

    straight = run(Save())
    for at in (6, 7, 9):  # 6 and 9 are steps of an exchange
        resumed = run(ckpt_path=tmp_path / f"{at}.ckpt")
        for name, value in straight.state_dict().items():
            assert torch.equal(value.view(torch.int32), resumed.state_dict()[name].view(torch.int32)), (name, at)


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
        assert state["callbacks"]["AnnealedSparsity"] == {"step": step, "kept": callback.targets(step), "masks": {}}


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


@pytest.mark.parametrize("kind", ["exchanging", "self-paced", "on local gradients"])
def test_two_processes_stay_equal_unless_weights_grow_on_gradients_of_their_own(tmp_path, kind):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, torch
            torch.set_num_threads(1)
            from lightning.pytorch import Callback, LightningModule, Trainer
            from sparselit.callbacks import AnnealedSparsity, DynamicSparsity, RiglSparsity, SelfPacedSparsity
            from sparselit.sparsity import Rule, Schedule

            class LocalRigl(RiglSparsity):
                def on_fit_start(self, trainer, pl_module):
                    super().on_fit_start(trainer, pl_module)
                    self.local = {}  # tensor hooks see the gradient before the processes average theirs
                    for name, weight in self.tensors(pl_module).items():
                        weight.register_hook(lambda g, name=name: self.local.__setitem__(name, g.detach().clone()))

                def before_step(self, tensors, step):
                    super().before_step(tensors, step)
                    self._gradients = {name: self.local[name].abs() for name in self._gradients}

            class Equal(Callback):
                def on_train_batch_end(self, trainer, pl_module, *args):
                    mine = [m.float().flatten() for c in callbacks for m in c.masks.values()]
                    mine = torch.cat([p.detach().flatten() for p in pl_module.parameters()] + mine)
                    everyone = pl_module.all_gather(mine)
                    if not torch.equal(everyone[0], everyone[1]):
                        raise RuntimeError(f"the processes differ after step {trainer.global_step}")

            class Net(LightningModule):
                def __init__(self):
                    super().__init__()
                    torch.manual_seed(0)
                    self.first, self.second = torch.nn.Linear(8, 12), torch.nn.Linear(12, 4)
                    self.third = torch.nn.Linear(4, 4)
                def training_step(self, batch, batch_idx):
                    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(100 * self.global_rank + batch_idx))
                    return (self.third(self.second(self.first(x).tanh())) - x[:, :4].sin()).square().mean()
                def configure_optimizers(self):
                    return torch.optim.Adam(self.parameters(), lr=0.1)
                def train_dataloader(self):
                    return torch.utils.data.DataLoader(range(40))

            def only(name):
                return [Rule(f"{name}.weight"), Rule("*", density=None)]

            rigl = LocalRigl if sys.argv[2] == "on local gradients" else RiglSparsity
            callbacks = [
                AnnealedSparsity(Schedule(to=0.1, end=0.5), only("first")),
                rigl(0.3, only("second"), every_n_steps=3),
                DynamicSparsity(0.3, only("third"), every_n_steps=3),
            ]
            if sys.argv[2] == "self-paced":
                rise = dict(loss_below=0.3, memory=0.0, spike=1.1, patience=2, shrink=0.05, finish=11)
                callbacks = [SelfPacedSparsity(Schedule(to=0.1, end=4), moments="reset", **rise)]
            quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
            trainer = Trainer(max_steps=12, accelerator="cpu", devices=2, strategy="ddp",
                              callbacks=[*callbacks, Equal()], num_sanity_val_steps=0,
                              **dict.fromkeys(quiet, False))
            net = Net()
            trainer.fit(net)
            torch.save(net.state_dict(), f"{sys.argv[1]}/rank{trainer.global_rank}.pt")
            if sys.argv[2] == "self-paced":
                assert callbacks[0].pace.rollbacks and callbacks[0].locked, callbacks[0].pace
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), kind],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    if kind == "on local gradients":
        assert done.returncode != 0
        assert "the processes differ after step 3" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    if kind == "exchanging":
        assert states[0]["first.weight"].count_nonzero() == 10
        assert 0 < states[0]["second.weight"].count_nonzero() <= 14


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
