"""The base of the callbacks that keep weights at zero: it decides when, its subclasses decide which entries live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparselit.errors import SparselitError
from sparselit.sparsity.budget import Budget, Rule, check_distribution, plan
from sparselit.sparsity.density import density_table, total
from sparselit.sparsity.distribution import Distribution
from sparselit.sparsity.schedule import Schedule, as_schedule
from sparselit.sparsity.updates import refuse_non_finite, was_skipped, zero_moments
from sparselit.training.steps import is_logging_step, length_in_epochs

#: What happens to the optimizer's moments of dead entries, see :class:`Sparsifier`.
Moments = Literal["keep", "mask", "reset"]

#: What the optimizer sees of the gradient of dead entries, see :class:`Sparsifier`.
Gradients = Literal["dense", "masked"]

#: A density of a callback: a number, a schedule, or a list of schedules one after the other.
Density = float | Schedule | list[Schedule]


class Sparsifier(Callback, ABC):
    """Keeps all but a given share of a module's weights at exactly zero, after every applied optimizer step.

    Works on any LightningModule, with gradient accumulation, manual optimization, several optimizers, mixed precision
    and DDP; the parameters stay plain tensors. A step is one applied update of any optimizer: one skipped by mixed
    precision does not count. Subclasses implement :meth:`update` and, where the first masks differ, :meth:`start`.

    Args:
        density: share of non-zero weights in (0, 1], from the first step on; or a schedule ``{to: 0.02, ...}``; or a
            list of schedules, one after the other.
        rules: exceptions by parameter name; the first match wins. Without one, every parameter with at least two
            dimensions is sparsified and vectors stay dense.
        moments: the optimizer's moments (Adam, momentum): ``keep`` leaves them alone, ``mask`` zeroes them at dead
            entries after every step, ``reset`` zeroes them at an entry when it comes back to life.
        grads: the gradient that clipping and the optimizer see: ``dense``, so that dead entries may come back, or
            ``masked`` to the live ones.
        distribution: how the tensors share the living entries: ``uniform`` (one density), ``er`` or ``erk``
            (Erdős–Rényi: small matrices stay denser, the total is the same).

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    #: Whether the masks are part of the callback's state, because they do not follow from the weights.
    saves_masks: ClassVar[bool] = False

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        moments: Moments = "keep",
        grads: Gradients = "dense",
        distribution: Distribution = "uniform",
    ) -> None:
        if moments not in ("keep", "mask", "reset"):
            raise SparselitError(f"moments must be keep, mask or reset, got {moments!r}")
        if grads not in ("dense", "masked"):
            raise SparselitError(f"grads must be dense or masked, got {grads!r}")
        check_distribution("distribution", distribution)
        self.density = as_schedule(density)
        self.rules = list(rules or ())
        self.moments = moments
        self.grads = grads
        self.distribution = distribution
        self.step = 0  # applied optimizer steps, of all optimizers together
        self.masks: dict[str, Tensor] = {}  # live entries by tensor, where they are needed
        self.total_steps = -1  # length of the run, optimizer steps; -1 where it is not known
        self.thresholds: dict[str, float] = {}  # limits of the last projection, hints for the next one
        self._module: nn.Module | None = None
        self._budgets: list[Budget] | None = None
        self._handles: list[RemovableHandle] = []
        self._optimizers: Sequence[Optimizer] = ()
        self._watched: dict[str, Tensor] = {}  # all parameters that have to stay finite
        self._resumed = False

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """Decide which entries live after an optimizer step.

        The base sets all others to zero. ``self.masks`` holds the masks of the step before where ``saves_masks`` is
        set; gradients are still there (``tensors[name].grad``). Must give the same result in every process.

        Args:
            tensors: the sparsified parameters by name, as the optimizer left them.
            step: number of applied optimizer steps, 1 after the first.

        Returns:
            Boolean masks by name, true where an entry lives.
        """

    def start(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Decide which entries live before the first step of a run that is not resumed.

        Args:
            tensors: the sparsified parameters by name.

        Returns:
            Boolean masks by name, true where an entry lives.
        """
        return self.update(tensors, self.step)

    def prepare(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Change the weights in place after an optimizer step, before it is decided which live; by default nothing.

        Args:
            tensors: the sparsified parameters by name, as the optimizer left them.
            step: number of applied optimizer steps, 1 after the first.
        """

    def cut(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor] | None:
        """Set all but the live entries to exactly zero, in place.

        Args:
            tensors: the sparsified parameters by name.
            step: number of applied optimizer steps.

        Returns:
            Their masks; a faster way may give None where :attr:`needs_masks` is false.
        """
        masks = self.update(tensors, step)
        for name, weight in tensors.items():
            weight.masked_fill_(~masks[name], 0.0)
        return masks

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Look at the gradients of an optimizer step before they are masked and clipped; by default nothing.

        Args:
            tensors: the sparsified parameters by name; their gradients are those of the whole batch, the same in
                every process. Mixed precision may skip the step, which then comes again under the same number.
            step: number that the step has when it is applied, 1 for the first.
        """

    def reads_gradients(self, step: int) -> bool:
        """Whether :meth:`before_step` needs the gradient of dead entries in the step that becomes number ``step``."""
        return False

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse budgets that the method cannot keep; overridden by methods with limits of their own.

        Args:
            budgets: the plan of the run.

        Raises:
            SparselitError: a budget does not suit the method.
        """

    # -- what others ask --------------------------------------------------------------------------------------------

    def validate(self, module: nn.Module, total_steps: int | None = None) -> list[Budget]:
        """Plan the run and refuse what cannot work, before anything is computed.

        Args:
            module: the module to be trained.
            total_steps: ``trainer.max_steps``; -1 where the run has no such length, None where it is not known yet.

        Returns:
            One budget per sparsified tensor.

        Raises:
            SparselitError: a rule matches nothing, a floor does not fit, or a schedule lacks the length of the run.
        """
        budgets = plan(module, self.density, self.rules, self.distribution)
        self.check(budgets)
        if total_steps is not None:
            if self.needs_length and total_steps < 1:
                raise SparselitError(
                    f"{type(self).__name__} is given in fractions of the run, whose length is not known: set "
                    "trainer.max_steps"
                )
            for budget in budgets:
                budget.density.check(total_steps)
        return budgets

    @property
    def needs_length(self) -> bool:
        """Whether anything is given as a fraction of the run, so that its length must be known."""
        densities = [self.density, *(rule.density for rule in self.rules)]
        return any(density.needs_length for density in densities if isinstance(density, Schedule))

    @property
    def budgets(self) -> list[Budget]:
        """The plan of the run, made when it is first asked for."""
        if self._budgets is None:
            if self._module is None:
                raise SparselitError(f"{type(self).__name__} has no plan before the trainer has set it up")
            self._budgets = self.validate(self._module)
        return self._budgets

    def targets(self, step: int) -> dict[str, int]:
        """Number of live entries of every sparsified tensor after ``step`` optimizer steps."""
        return {budget.name: budget.k(step, self.total_steps) for budget in self.budgets}

    def density_at(self, step: int) -> float:
        """Share of live entries over all sparsified tensors after ``step`` optimizer steps, in (0, 1]."""
        return sum(self.targets(step).values()) / sum(budget.numel for budget in self.budgets)

    @property
    def density_now(self) -> float:
        """Share of live entries over all sparsified tensors at the current step, in (0, 1]."""
        return self.density_at(self.step)

    def learning_rate(self, weight: Tensor) -> float:
        """The learning rate with which the optimizers have just changed a parameter, 0 where none of them does."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                if any(weight is other for other in group["params"]):
                    return float(group["lr"])
        return 0.0

    def tensors(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The sparsified parameters of a module by name."""
        return {budget.name: _parameter(module, budget.name) for budget in self.budgets}

    def live(self, module: nn.Module) -> dict[str, Tensor]:
        """Masks of the living entries by name: the method's own, or the entries that are not zero."""
        return {n: self.masks.get(n, weight.detach() != 0) for n, weight in self.tensors(module).items()}

    # -- when: Lightning's hooks ------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse sharded strategies and note the length of the run.

        The plan itself is made when first asked for, in ``on_fit_start`` at the latest: modules may create their
        parameters after this hook.
        """
        if stage != "fit":
            return
        strategy = trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
            raise SparselitError(
                f"{type(self).__name__} needs whole weights on every device: use a single device or strategy: ddp, "
                f"not {type(strategy).__name__}"
            )
        self._module, self._budgets, self._resumed = pl_module, None, False
        self.total_steps = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the plan and hook onto every optimizer: its step post hook is the moment of the projection."""
        endless = self.total_steps < 0 and trainer.max_epochs in (None, -1)
        self._budgets = self.validate(pl_module, self.total_steps if self.total_steps > 0 or endless else None)
        for other in sparsifiers_of(trainer):
            shared = {b.name for b in self.budgets} & {b.name for b in other.budgets}
            if other is not self and shared:
                raise SparselitError(
                    f"{type(self).__name__} and {type(other).__name__} both sparsify {min(shared)}: give one of them "
                    "the rule that keeps it dense (density: null)"
                )
        self._remove_hooks()

        def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if not was_skipped(optimizer):
                self.step += 1
                self._enforce(self.tensors(pl_module), start=False)

        self._watched = {name: p for name, p in pl_module.named_parameters() if p.is_floating_point() and p.numel()}
        self._optimizers = trainer.optimizers
        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out the length of a run given in epochs, and bring the weights to the first density."""
        if self.total_steps < 0:
            self.total_steps = length_in_epochs(trainer, pl_module)
        self.validate(pl_module, self.total_steps)
        tensors = self.tensors(pl_module)
        continued = self._resumed or (trainer.global_step > 0 and self.step > 0)
        if continued and (self.masks.keys() == tensors.keys() or not self.needs_masks):
            self.masks = {name: mask.to(tensors[name].device) for name, mask in self.masks.items()}
            return  # these weights are exact already, and their masks are not to be drawn again
        self.step = self.step if self._resumed else trainer.global_step
        self.masks = {}
        self._enforce(tensors, start=True)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Hide the gradient of dead entries where ``grads`` says so, before it is clipped."""
        tensors = self.tensors(pl_module)
        self.before_step(tensors, self.step + 1)
        if self.masks_gradients:
            for name, mask in self.live(pl_module).items():
                gradient = tensors[name].grad
                if gradient is not None:
                    gradient.masked_fill_(~mask, 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log ``density/total`` and ``density/target``, of all sparsifiers of the run together."""
        sparsifiers = sparsifiers_of(trainer)
        if sparsifiers[0] is not self or not is_logging_step(trainer):
            return
        rows = density_table({k: v for other in sparsifiers for k, v in other.tensors(pl_module).items()})
        kept = sum(sum(other.targets(other.step).values()) for other in sparsifiers)
        pl_module.log("density/total", total(rows).density, prog_bar=True, batch_size=1)
        pl_module.log("density/target", kept / total(rows).numel, batch_size=1)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off the optimizers."""
        self._remove_hooks()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off the optimizers."""
        self._remove_hooks()

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Class and patterns of the rules: several sparsifiers of one class differ in what they sparsify."""
        rules = [("-" if rule.density is None else "") + rule.match for rule in self.rules]
        return self._generate_state_key(rules=rules) if rules else type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """The number of applied steps, and the masks where they do not follow from the weights."""
        return {"step": self.step, "masks": dict(self.masks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; the run is then not started anew."""
        self.step = state_dict["step"]
        self.masks = dict(state_dict["masks"])
        self._resumed = True

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def masks_gradients(self) -> bool:
        """Whether the optimizer is not to see the gradient of dead entries now."""
        return self.grads == "masked"

    @property
    def needs_masks(self) -> bool:
        """Whether the masks are asked for after a step: to be saved, or for the moments."""
        return self.saves_masks or self.moments != "keep"

    @torch.no_grad()
    def _enforce(self, tensors: Mapping[str, Tensor], start: bool) -> None:
        """Set all but the live entries to zero, and treat the moments as asked."""
        refuse_non_finite(self._watched, self.step)
        if start:
            masks: Mapping[str, Tensor] | None = self.start(tensors)
            for name, weight in tensors.items():
                weight.masked_fill_(~(masks or {})[name], 0.0)
        else:
            self.prepare(tensors, self.step)
            masks = self.cut(tensors, self.step)
        if masks is None:
            return
        for name, weight in tensors.items() if not start else ():
            if self.moments == "mask":
                zero_moments(weight, ~masks[name], self._optimizers)
            elif self.moments == "reset" and name in self.masks:
                zero_moments(weight, masks[name] & ~self.masks[name], self._optimizers)
        if self.saves_masks or self.moments == "reset":
            self.masks = dict(masks)

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def sparsifiers_of(trainer: Trainer) -> list[Sparsifier]:
    """All sparsifiers of a run, in the trainer's order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Sparsifier)]


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    """``module.get_parameter(name)`` without its checks: several times a step, they would show in the profile."""
    *path, last = name.split(".")
    for part in path:
        module = module._modules[part]  # type: ignore[assignment]
    return module._parameters[last]  # type: ignore[return-value]
