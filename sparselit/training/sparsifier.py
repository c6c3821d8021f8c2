"""The base of the callbacks that keep weights at zero: it decides when, its subclasses decide which entries live."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from sparselit.sparsity.density import density_table, total
from sparselit.sparsity.length import Length
from sparselit.sparsity.updates import masked_sparse, refuse_non_finite, refuse_vanishing_eps, was_skipped, zero_moments
from sparselit.training.method import Method
from sparselit.training.neighbours import (
    averages_first,
    averages_of,
    refuse_rewriters,
    refuse_sharded,
    refuse_shared,
    restrict_,
)
from sparselit.training.resumption import Course, living_shares, sparsity_states
from sparselit.training.steps import is_logging_step, length_before_data, run_length


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
        self.promise.problems, self.promise.shortfall = [], ""
        self._module, self._budgets, self._resumed = pl_module, None, False
        if not (trainer.global_step and self.step):  # else the same trainer goes on
            self.course = Course(Length(trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else -1))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the plan and hook onto every optimizer: its step post hook is the moment of the projection."""
        self._budgets = self.validate(pl_module, length_before_data(trainer))
        for other in sparsifiers_of(trainer):
            if other is not self:
                refuse_shared((type(self).__name__, self.budgets), (type(other).__name__, other.budgets))
        self._remove_hooks()
        refuse_vanishing_eps(trainer.optimizers)

        def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if not was_skipped(optimizer):
                self.step += 1
                self._enforce(self.tensors(pl_module))

        self._watched = {name: p for name, p in pl_module.named_parameters() if p.is_floating_point() and p.numel()}
        self._optimizers = trainer.optimizers
        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out the length of a run given in epochs, and bring the weights to the first density."""
        self._unlogged = True
        length = self._length(trainer, pl_module)
        self.validate(pl_module, length)
        tensors = self.tensors(pl_module)
        continued = self._resumed or (trainer.global_step > 0 and self.step > 0)
        self.step = self.step if continued else trainer.global_step
        changed = self.course.resume(self.budgets, self.step, length)
        if length > 0 and self.foreseen.missed and not getattr(trainer, "fast_dev_run", False):
            self.promise.note(f"the run will end with {self.foreseen}")
        self.masks = {n: mask.to(tensors[n].device) for n, mask in self.masks.items() if continued and n in tensors}
        if continued and not changed and (self.masks.keys() == tensors.keys() or not self.needs_masks):
            return  # these weights are exact already, and their masks are not to be drawn again
        self._enforce(tensors, self.go_on if continued else self.start)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps again: an epoch may have another length than those before it."""
        length = self._length(trainer, pl_module)
        if length != self.course.length:
            self.course.resume(self.budgets, self.step, length)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Hide the gradient of dead entries where ``grads`` says so, before it is clipped."""
        tensors = self.tensors(pl_module)
        self.before_step(tensors, self.step + 1)
        if self.masks_gradients:
            for name, mask in self.live(pl_module).items():
                gradient = tensors[name].grad
                if gradient is not None and gradient.is_sparse:
                    tensors[name].grad = masked_sparse(gradient, mask)
                elif gradient is not None:
                    gradient.masked_fill_(~mask, 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log ``density/total`` and ``density/target``, of all sparsifiers of the run together."""
        self._restrict_averages(trainer, pl_module)
        sparsifiers = sparsifiers_of(trainer)
        if sparsifiers[0] is not self or not (self._unlogged or is_logging_step(trainer)):
            return
        self._unlogged = False  # the first step of a process too, so that it can be monitored from then on
        rows = density_table({k: v for other in sparsifiers for k, v in other.tensors(pl_module).items()})
        kept = sum(sum(other.targets(other.step).values()) for other in sparsifiers)
        pl_module.log("density/total", total(rows).density, prog_bar=True, batch_size=1)
        pl_module.log("density/target", kept / total(rows).numel, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold averages that are taken once an epoch to the budget."""
        self._restrict_averages(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where the run has not come to the density at which its schedule ends."""
        arrival, tried = self.arrival, getattr(trainer, "fast_dev_run", False)
        if self.kept and arrival.missed and not self.promise.shortfall and not tried:
            self.promise.fall_short(f"the run ended with {arrival}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count what is written: no checkpoint is denser than it should be without a word."""
        written, step = checkpoint["state_dict"], trainer.global_step
        self.promise.check(written, self.kept, f"the checkpoint of step {step}")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Learn how sparse the run was so far, whichever sparsifier it had; take over the state of one like this."""
        states = sparsity_states(checkpoint)
        if states and not any(state["kept"] for state in states.values()):
            return  # from before the first projection: a finder's trial
        for state in states.values():
            self.course.load(state["course"])
        self.course.shares = living_shares(checkpoint)
        taken = {other.state_key for other in sparsifiers_of(trainer)}
        alike = [key for key in states if key not in taken and key.partition("{")[0] == type(self).__qualname__]
        if self.state_key not in states and len(alike) == 1:  # of other rules
            self.load_state_dict(copy.deepcopy(dict(states[alike[0]])))

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
        masks, course = dict(self.masks), self.course.state()
        return {"step": self.step, "kept": dict(self.kept), "masks": masks, "course": course}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint; the run is then not started anew."""
        self.step = state_dict["step"]
        self.kept, self.masks = dict(state_dict["kept"]), dict(state_dict["masks"])
        self.course.load(state_dict["course"])
        self._resumed = bool(self.kept)

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
    def _enforce(self, tensors: Mapping[str, Tensor], start: Callable[..., Mapping[str, Tensor]] | None = None) -> None:
        """Set all but the live entries to zero, and treat the moments as ``moments`` says.

        Args:
            tensors: the sparsified parameters by name.
            start: decides where no step was taken before.
        """
        refuse_non_finite(self._watched, self.step)
        self.kept = self.targets(self.step)
        if start:
            masks: Mapping[str, Tensor] | None = start(tensors)
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

    def _length(self, trainer: Trainer, module: LightningModule) -> int:
        """Steps that will have been applied when the run ends; those skipped by mixed precision are not among them."""
        length = run_length(trainer, module)
        return length if length < 1 else max(1, length - max(0, trainer.global_step - self.step))

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def sparsifiers_of(trainer: Trainer) -> list[Sparsifier]:
    """All sparsifiers of a run, in the trainer's order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Sparsifier)]
