"""The base of the callbacks that keep weights at zero: it decides when, its subclasses decide which entries live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from sparselit.sparsity.density import density_table, total
from sparselit.sparsity.updates import refuse_non_finite, was_skipped, zero_moments
from sparselit.training.method import Method
from sparselit.training.neighbours import (
    averages_first,
    averages_of,
    refuse_rewriters,
    refuse_sharded,
    refuse_shared,
    restrict_,
)
from sparselit.training.steps import is_logging_step, length_in_epochs


class Sparsifier(Method, Callback):
    """Keeps all but a given share of a module's weights at exactly zero, after every applied optimizer step.

    Works on any LightningModule, with gradient accumulation, manual optimization, several optimizers, mixed precision
    and DDP; the parameters stay plain tensors. A step is one applied update of any optimizer: one skipped by mixed
    precision does not count. Subclasses implement :meth:`update` and, where the first masks differ, :meth:`start`.

    Arguments as of :class:`Method`.

    Examples:
        >>> from torch import nn
        >>> from sparselit.sparsity import top_k_mask
        >>> class Largest(Sparsifier):
        ...     def update(self, tensors, step):
        ...         return {name: top_k_mask(tensors[name], k) for name, k in self.targets(step).items()}
        >>> (budget,) = Largest(0.5).validate(nn.Linear(4, 2))
        >>> budget.name, budget.k(step=0, total_steps=100)
        ('weight', 4)
    """

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse strategies and callbacks that leave a model of another density, before anything is computed.

        Raises:
            SparselitError: names the strategy or the callback.
        """
        refuse_sharded(trainer, type(self).__name__)
        refuse_rewriters(trainer, type(self).__name__, self.goes_back)

    # -- when: Lightning's hooks ------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot stand beside a sparsifier and note the length of the run.

        The plan itself is made when it is first read, in ``on_fit_start`` at the latest: modules may create their
        parameters after this hook.
        """
        if stage != "fit":
            return
        self.check_trainer(trainer)
        averages_first(trainer)
        self.promise.problems = []
        self._module, self._budgets, self._resumed = pl_module, None, False
        self.total_steps = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the plan and hook onto every optimizer: its step post hook is the moment of the projection."""
        endless = self.total_steps < 0 and trainer.max_epochs in (None, -1)
        self._budgets = self.validate(pl_module, self.total_steps if self.total_steps > 0 or endless else None)
        for other in sparsifiers_of(trainer):
            if other is not self:
                refuse_shared((type(self).__name__, self.budgets), (type(other).__name__, other.budgets))
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
        self._restrict_averages(trainer, pl_module)
        sparsifiers = sparsifiers_of(trainer)
        if sparsifiers[0] is not self or not is_logging_step(trainer):
            return
        rows = density_table({k: v for other in sparsifiers for k, v in other.tensors(pl_module).items()})
        kept = sum(sum(other.targets(other.step).values()) for other in sparsifiers)
        pl_module.log("density/total", total(rows).density, prog_bar=True, batch_size=1)
        pl_module.log("density/target", kept / total(rows).numel, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold averages that are taken once an epoch to the budget."""
        self._restrict_averages(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count what is written: no checkpoint is denser than it should be without a word."""
        written, step = checkpoint["state_dict"], trainer.global_step
        self.promise.check(written, self.kept, f"the checkpoint of step {step}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off the optimizers."""
        self._remove_hooks()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off the optimizers; at the end of a run, count what is left."""
        self._remove_hooks()
        if stage == "fit":
            left, step = pl_module.state_dict(), trainer.global_step
            self.promise.check(left, self.kept, f"the model after step {step}")

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Class and patterns of the rules: several sparsifiers of one class differ in what they sparsify."""
        rules = [("-" if rule.density is None else "") + rule.match for rule in self.rules]
        return self._generate_state_key(rules=rules) if rules else type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """The number of applied steps, the budgets, and the masks where they do not follow from the weights."""
        return {"step": self.step, "kept": dict(self.kept), "masks": dict(self.masks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; the run is then not started anew."""
        self.step = state_dict["step"]
        self.kept, self.masks = dict(state_dict["kept"]), dict(state_dict["masks"])
        self._resumed = True

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def masks_gradients(self) -> bool:
        """Whether the optimizer is not to see the gradient of dead entries now."""
        return self.grads == "masked"

    @property
    def needs_masks(self) -> bool:
        """Whether the masks are needed after a step: to be saved, or for the moments."""
        return self.saves_masks or self.moments != "keep"

    @torch.no_grad()
    def _enforce(self, tensors: Mapping[str, Tensor], start: bool) -> None:
        """Set all but the live entries to zero, and treat the moments as ``moments`` says."""
        refuse_non_finite(self._watched, self.step)
        self.kept = self.targets(self.step)
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

    def _restrict_averages(self, trainer: Trainer, module: LightningModule) -> None:
        if averages := averages_of(trainer):
            restrict_(averages, self.tensors(module), self.live(module))

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def sparsifiers_of(trainer: Trainer) -> list[Sparsifier]:
    """All sparsifiers of a run, in the trainer's order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Sparsifier)]
