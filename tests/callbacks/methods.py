"""Every sparsity method that `sparselit.callbacks` names, in short runs, and the small modules they run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.method import Density
from sparselit.training.sparsifier import Sparsifier

STEPS = 12

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
}

#: What makes a method act within a few steps, by class and variant. A class without a line here acts as it is.
SHORT: dict[str, dict[str, dict[str, Any]]] = {
    "AcdcSparsity": {"": {"begin": 2, "end": 9, "every_n_steps": 3}},
    "AnnealedSparsity": {"": {}, "mask": {"moments": "mask"}, "reset": {"moments": "reset"}},
    "DynamicSparsity": {"": {"every_n_steps": 3, "until": 0.9}},
    "GradualPruning": {"": {"every_n_steps": 2}, "every-step": {"every_n_steps": 1}, "ten-steps": {}},
    "LotteryTicket": {"": {"at": 0.5}, "later": {"at": 7, "rewind": 3}},
    "OneShotPruning": {"": {"at": 0.5}},
    "ProximalSparsity": {"": {"strength": 0.0}, "penalty": {"strength": 0.1, "until": 0.5}},
    "RiglSparsity": {"": {"every_n_steps": 3, "until": 0.9}},
    "SelfPacedSparsity": {
        "": {"loss_below": 1e9},
        "back": {
            "density": Schedule(to=0.05, end=8),
            "loss_below": 0.15,
            "memory": 0.2,
            "spike": 1.3,
            "patience": 2,
            "shrink": 0.05,
            "finish": 14,
        },
        "again": {"density": Schedule(to=0.05, end=8), "loss_below": 1e-6, "shrink": 5.0, "patience": 6},
    },
    "StaticSparsity": {"": {}, "magnitude": {"mask": "magnitude", "moments": "mask"}},
}
#: Variants that shrink weights themselves: their budget is an upper bound.
BOUNDED = {"ProximalSparsity-penalty"}
#: Variants that go back to weights of an earlier budget; `test_self_paced.py` counts those.
RETURNING = {"SelfPacedSparsity-back", "SelfPacedSparsity-again"}


def registered() -> dict[str, type[Sparsifier]]:
    """The methods by name; being in ``__all__`` is what makes a class one of them."""
    callbacks = import_module("sparselit.callbacks")
    kinds = {name: getattr(callbacks, name) for name in callbacks.__all__}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, Sparsifier)}


@dataclass(frozen=True)
class Member:
    """A method with the arguments that make it act within a few steps."""

    name: str
    kind: type[Sparsifier]
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self, density: Density = 0.25, rules: list[Rule] | None = None, **more: Any) -> Sparsifier:
        """A fresh callback; a method whose density is its own, such as n of m, is not given one."""
        given = {"density": density} if self.takes_density else {}
        return self.kind(**{**self.arguments, **given, "rules": rules, **more})

    @property
    def takes_density(self) -> bool:
        return "density" in signature(self.kind).parameters

    @property
    def is_exact(self) -> bool:
        return self.name not in BOUNDED | RETURNING

    @property
    def follows_schedules(self) -> bool:
        try:
            self(Schedule(to=0.1, end=9)).validate(Awkward(), STEPS)
        except SparselitError:
            return False
        return self.takes_density

    def usual(self, **more: Any) -> Sparsifier:
        """A callback with a density that falls where the method allows it."""
        falling = Schedule(to=0.1, begin=0.1, end=0.8, shape="cubic")
        return self(self.arguments.get("density", falling if self.follows_schedules else 0.25), **more)


def members() -> dict[str, Member]:
    """Every method in each of its variants."""
    found = {}
    for name, kind in registered().items():
        for variant, arguments in SHORT.get(name, {"": {}}).items():
            label = f"{name}-{variant}" if variant else name
            found[label] = Member(label, kind, arguments)
    return found


def arguments_of(kind: type) -> dict[str, str]:
    """Help of every argument of a class, as ``sparselit fit --sparsity.help CLASS`` prints it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False, sub_configs=False)
    return {a.dest: a.help or "" for a in parser._actions if "." not in a.dest and a.dest != "help"}


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
    """Notes gradients of every step, and weights, masks and budgets as its checkpoint has them."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.targets: list[dict[str, int]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.steps: list[int] = []

    def on_train_start(self, trainer, pl_module) -> None:
        (self.sparsifier,) = [c for c in trainer.callbacks if isinstance(c, Sparsifier)]
        self.cut = self.sparsifier.targets(self.sparsifier.step)
        for optimizer in trainer.optimizers:  # hooks of the sparsifier run before these
            optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.cut = self.sparsifier.targets(self.sparsifier.step)  # a method's clock may go on before the batch ends

    def on_before_zero_grad(self, trainer, pl_module, *args) -> None:
        found = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        if found:
            self.gradients.append(found)

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        path = f"{trainer.default_root_dir}/last.ckpt"
        trainer.save_checkpoint(path)
        found = torch.load(path, weights_only=True)
        self.weights.append(found["state_dict"])
        self.masks.append(found["callbacks"][self.sparsifier.state_key]["masks"])
        self.targets.append(self.cut)
        self.steps.append(self.sparsifier.step)

    def check(self, exact: bool = True) -> None:
        """Every tensor has its budget: living entries, or masks where a living weight may still be 0."""
        assert self.targets
        for weights, masks, targets in zip(self.weights, self.masks, self.targets, strict=True):
            for name, k in targets.items():
                assert int(weights[name].count_nonzero()) <= k
                assert not torch.signbit(weights[name][weights[name] == 0]).any()
                if name in masks:
                    assert int(masks[name].sum()) == k or not exact
                    assert not weights[name][~masks[name]].any()
                elif exact:
                    assert int(weights[name].count_nonzero()) == k


def fit(module: LightningModule, *callbacks: Callback, ckpt_path: Any = None, **kwargs: Any) -> Trainer:
    """Train quietly."""
    trainer = Trainer(**(QUIET | {"callbacks": list(callbacks), "max_epochs": -1} | kwargs))
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def trained(callback: Sparsifier, make_trainer: Any, lr: float = 0.05, **kwargs: Any) -> tuple[Awkward, Watch]:
    """Train the awkward shapes and watch."""
    module, watch = Awkward(lr), Watch()
    make_trainer(callback, watch, max_steps=STEPS, **kwargs).fit(module)
    return module, watch


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors and numbers in plain containers, by their place."""
    if isinstance(value, Tensor | int | float | bool):
        yield name, torch.as_tensor(value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from flat(item, f"{name}.{key}")
