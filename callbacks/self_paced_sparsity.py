"""Annealing that waits and turns back: the density falls only while the model still does its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from sparselit.errors import LARGEST_COUNT, LARGEST_RATE, check_moment, check_range, check_whole
from sparselit.sparsity.budget import Rule
from sparselit.sparsity.pace import Pace, Verdict
from sparselit.sparsity.proximal import shrink_
from sparselit.sparsity.schedule import steps
from sparselit.sparsity.snapshot import restore_, take
from sparselit.training.held_out import on_selection
from sparselit.training.method import Density
from sparselit.training.promise import Arrival
from sparselit.training.steps import is_last_step

from .annealed_sparsity import AnnealedSparsity

#: Share of the living entries that must have gone since the last snapshot for a new one to be taken.
_FALLEN = 0.03
#: Rollbacks to one snapshot after which the one before it is tried.
_TRIES = 3
#: Prompts of the selection split that are enough to see whether the task is being lost.
_PROMPTS = 256


class SelfPacedSparsity(AnnealedSparsity):
    """Top-k projection whose schedule waits while the running loss is too high, and is taken back when it breaks.

    Annealed blindly, a model that loses a weight it needs goes on losing weights while it recovers, and collapses
    (``docs/results/extreme_density.md``). Here the schedule has a clock of its own, which advances with each optimizer
    step after which the running loss is below ``loss_below``; snapshots are taken on the way. When the loss rises or
    the clock stands still for too long, weights, optimizer and clock go back to the last snapshot, and clock and
    learning rate go on at 0.7 times their speed. With ``held_out`` the loss on prompts that are not trained on decides
    as well: a task that is only learned by heart loses no weights. A penalty can keep a model from learning its task
    at all: where nothing is learned for ``patience`` steps, the run begins again, without the penalty until it is.

    The end: from ``finish`` on, or as soon as the density is reached, the sparsest state that holds on the selection
    split is locked and trained on without the penalty. A model that does not hold when the run ends is replaced by the
    sparsest snapshot that does, and a warning says why.

    Args:
        density: share of living weights in (0, 1], a schedule over the clock's steps.
        loss_below: running training loss under which the density falls, nats, above 0.
        memory: weight of the past in the running loss, in [0, 1); 0.9 averages over about ten batches.
        shrink: L1 penalty: each step shrinks sparsified weights by this times the learning rate, at least 0. It keeps
            weights moving when the task's gradient is gone, so that what is cut is what nobody holds up.
        spike: multiple of ``loss_below``, above 1, at which the running loss causes a rollback; null for never.
        patience: optimizer steps without an advance that cause a rollback, or, before the first advance, without a
            lower loss that cause a beginning without the penalty; at least 1; null for never.
        held_out: optimizer steps between two looks at the loss on the selection split, at least 1; the density then
            falls only while this loss is below ``loss_below`` too. Null looks at the training batches alone.
        finish: latest moment at which the support is locked; a fraction of the run in [0, 1], or optimizer steps
            above 1; null never locks it.
        hold: accuracy on the selection split that a state needs in order to hold, in [0, 1].
        snapshots: number of snapshots that are kept, at least 1.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    goes_back: ClassVar[bool] = True

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        *,
        loss_below: float = 0.1,
        memory: float = 0.9,
        shrink: float = 0.0,
        spike: float | None = 4.0,
        patience: int | None = 200,
        finish: float | None = None,
        hold: float = 0.99,
        snapshots: int = 8,
        held_out: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, **kwargs)
        check_range("loss_below", loss_below, 0, above=True, most=LARGEST_COUNT)
        check_range("memory", memory, 0, 1, below=True)
        check_range("shrink", shrink, 0, most=LARGEST_RATE)
        check_range("hold", hold, 0, 1)
        check_whole("snapshots", snapshots, 1)
        if spike is not None:
            check_range("spike", spike, 1, above=True, most=LARGEST_RATE)
        for key, value in (("patience", patience), ("held_out", held_out)):
            if value is not None:
                check_whole(key, value, 1)
        if finish is not None:
            check_moment("finish", finish)
        self.loss_below, self.memory, self.shrink = loss_below, memory, shrink
        self.spike, self.patience, self.finish, self.held_out = spike, patience, finish, held_out
        self.hold, self.keep_snapshots = hold, snapshots
        self.pace = Pace()
        self.locked = False
        self.snapshots: list[dict[str, Any]] = []  # the newest last
        self._waits = 0  # steps on which the clock stood still
        self._losses: list[float] = []  # of the batches since the last applied step
        self._seen: tuple[int, float] | None = None  # step of the last look at the selection split, and loss there
        self._first: dict[str, Any] | None = None  # where the run began, while it may have to begin again
        self._decided = 0  # the step that was decided on last
        self._concluded = False
        self._lowered: list[tuple[dict[str, Any], float]] = []

    # -- what the base calls ------------------------------------------------------------------------------------------

    @property
    def needs_length(self) -> bool:
        """Whether ``finish`` or the density is a fraction of the run."""
        return (self.finish is not None and 0 < self.finish <= 1) or super().needs_length

    @property
    def masks_gradients(self) -> bool:
        """Also once the support is locked."""
        return self.locked or super().masks_gradients

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries of every sparsified tensor at the clock's present position, whatever the step."""
        return super().targets(self.pace.clock)  # type: ignore[arg-type]

    @property
    def foreseen(self) -> Arrival:
        """How far the schedule will have come if it never waits."""
        last = sum(super().targets(self.total_steps).values())
        return replace(super().foreseen, reached=last)

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Remember the support where it is locked."""
        if self.locked:
            self._support = {name: weight != 0 for name, weight in tensors.items()}

    def prepare(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Shrink by the penalty's share of this step; once locked, leave dead what is dead."""
        for name, weight in tensors.items():
            if self.locked:
                weight.masked_fill_(~self._support[name], 0.0)
            elif self.snapshots or not self.pace.begun_again:
                shrink_(weight, self.shrink * self.learning_rate(weight))

    # -- when ---------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook onto the optimizers; the learning rate is lowered within a step only, for schedulers own it."""
        super().on_fit_start(trainer, pl_module)
        self._concluded = False
        hooks = [optimizer.register_step_pre_hook(self._lower) for optimizer in trainer.optimizers]
        hooks += [optimizer.register_step_post_hook(self._raise) for optimizer in trainer.optimizers]
        self._handles += hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the first weights, where the penalty may turn out to be too much for them."""
        super().on_train_start(trainer, pl_module)
        if self.shrink and self.patience is not None and self.step == 0:
            self._first = {"clock": 0.0, "budgets": self.kept, **take(pl_module, trainer.optimizers)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the density fall, wait, or go back; every process takes the same decision."""
        if isinstance(outputs, dict) and isinstance(outputs.get("loss"), Tensor):  # a share of the step's mean
            self._losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if self._losses and self.step > self._decided:
            mean = torch.tensor(sum(self._losses) / len(self._losses), device=pl_module.device)
            if not self.locked:
                self._decide(float(trainer.strategy.reduce(mean, reduce_op="mean")), trainer, pl_module)
            self._losses, self._decided = [], self.step
        if is_last_step(trainer):
            self._conclude(trainer, pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that ends early is concluded as well."""
        self._conclude(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def _decide(self, loss: float, trainer: Trainer, module: LightningModule) -> None:
        before, arrived = self.pace.clock, self._arrived
        rules = self.loss_below, self.memory, self.spike, self.patience
        held_out = self._held_out(loss, trainer, module)
        verdict = self.pace.observe(loss, *rules, bool(self.snapshots), arrived, held_out)
        self._waits += self.pace.clock == before
        if verdict == "begin again":
            if self._first is not None:
                self._restore(self._first, trainer, module)
                self.pace.begin_again()
                self._first = None
        elif verdict == "fall":
            self._first = None
            fallen = sum(self.targets(self.step).values())
            if not self.snapshots or fallen <= (1 - _FALLEN) * self.snapshots[-1]["kept"]:
                self._snapshot(before, trainer, module)
        elif verdict != "wait":
            self._roll_back(verdict, trainer, module)
        over = self.finish is not None and self.step >= steps(self.finish, self.total_steps)
        settled = arrived and verdict == "fall" and (self.pace.running_loss or 0.0) < self.loss_below / 3
        if self.finish is not None and (over or settled or self.pace.given_up):
            self._lock(trainer, module)

    def _held_out(self, loss: float, trainer: Trainer, module: LightningModule) -> float:
        """Loss on the selection split at the last look; nobody looks before the training loss is low."""
        due = self._seen is None or self.step - self._seen[0] >= (self.held_out or 0)
        if self.held_out and due and loss < self.loss_below:
            score = on_selection(trainer, module, _PROMPTS)
            self._seen = self.step, 0.0 if score is None else score.loss
        if self._seen is None:
            return math.inf if self.held_out else 0.0
        return self._seen[1]

    @property
    def _arrived(self) -> bool:
        """Whether the schedule has nothing left to take."""
        return all(self.course.entries(budget, self._end) == k for budget, k in self._pairs())

    @property
    def _end(self) -> int:
        return max(self.total_steps, int(self.pace.clock) + 1)

    def _pairs(self) -> list[tuple[Any, int]]:
        kept = self.targets(self.step)
        return [(budget, kept[budget.name]) for budget in self.budgets]

    # -- there and back -----------------------------------------------------------------------------------------------

    def _snapshot(self, clock: float, trainer: Trainer, module: LightningModule) -> None:
        """Keep the state of this step, whose weights were cut at ``clock``."""
        for older in self.snapshots:
            older["optimizers"] = []  # only the newest one is likely to be gone back to
        now, self.pace.clock = self.pace.clock, clock
        kept = sum(self.targets(self.step).values())
        self.pace.clock = now
        about: dict[str, Any] = {"clock": clock, "step": self.step, "kept": kept, "budgets": self.kept}
        about |= {"tries": 0, "loss": self.pace.running_loss}
        self.snapshots = [*self.snapshots, {**about, **take(module, trainer.optimizers)}][-self.keep_snapshots :]

    def _restore(self, snapshot: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> None:
        restore_(snapshot, module, trainer.optimizers)
        self.pace.clock, self.kept = snapshot["clock"], dict(snapshot["budgets"])
        self.thresholds, self._seen = {}, None
        if self.needs_masks:
            self.masks = {name: weight.detach() != 0 for name, weight in self.tensors(module).items()}

    def _roll_back(self, reason: Verdict, trainer: Trainer, module: LightningModule) -> None:
        """Go back to the newest snapshot, or to the one before it when that has failed too often."""
        if self.snapshots[-1]["tries"] >= _TRIES and len(self.snapshots) > 1:
            self.snapshots.pop()
        snapshot = self.snapshots[-1]
        snapshot["tries"] += 1
        self._restore(snapshot, trainer, module)
        self.pace.back_to(snapshot["clock"], snapshot["loss"], reason)

    def _lock(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the sparsest state that holds and fix its support, or wait for one."""
        self._keep_what_holds(trainer, module)
        self.locked = True
        self.pace.lr_factor = max(self.pace.lr_factor, 0.3)  # the support cannot break any more

    def _keep_what_holds(self, trainer: Trainer, module: LightningModule) -> float | None:
        """Leave the present state where it holds; otherwise restore the sparsest snapshot that does.

        Returns:
            Its score; None where nothing could be scored, or nothing holds.
        """
        score = _accuracy(trainer, module)
        if score is not None and score >= self.hold:
            return score
        if score is None and not self.pace.given_up and (self.pace.running_loss or 0.0) < self.loss_below:
            return None
        here = {**take(module, trainer.optimizers), "clock": self.pace.clock, "budgets": self.kept}
        for snapshot in sorted(self.snapshots, key=lambda s: (s["kept"], -s["step"])):
            self._restore(snapshot, trainer, module)
            score = _accuracy(trainer, module)
            if score is None or score >= self.hold:
                return score
        self._restore(here, trainer, module)
        return None

    def _conclude(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave a model that holds, and say so where it is not as sparse as configured."""
        if self._concluded or not self.step:
            return
        self._concluded = True
        score = self._keep_what_holds(trainer, module) if self.snapshots else None
        score = _accuracy(trainer, module) if score is None else score
        holds = score is None or score >= self.hold
        if self._arrived and holds:
            return
        what = "the density was reached" if self._arrived else f"the density stopped at {self.density_now:.4g}"
        why = self.pace.explanation(self.loss_below, self._waits, self.step)
        if score is not None:
            why += f"; it {'holds with' if holds else 'does not hold:'} {score:.2%} on the selection split"
        self.promise.fall_short(f"{what}: {why}; train longer, or configure a higher density")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _lower(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._lowered = [(group, group["lr"]) for group in optimizer.param_groups]
        for group, lr in self._lowered:
            group["lr"] = lr * self.pace.lr_factor

    def _raise(self, *_: Any) -> None:
        for group, lr in self._lowered:
            group["lr"] = lr
        self._lowered = []

    def state_dict(self) -> dict[str, Any]:
        """The base's state, the pace, the snapshots and whether the support is locked."""
        own = {"pace": asdict(self.pace), "locked": self.locked, "waits": self._waits, "snapshots": self.snapshots}
        own |= {"losses": list(self._losses), "decided": self._decided, "seen": self._seen, "first": self._first}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        super().load_state_dict(state_dict)
        self.pace = Pace(**state_dict["pace"])
        self.locked, self._waits = state_dict["locked"], state_dict["waits"]
        self.snapshots = list(state_dict["snapshots"])
        self._losses, self._decided = list(state_dict.get("losses", ())), state_dict.get("decided", self.step)
        self._seen, self._first = state_dict.get("seen"), state_dict.get("first")


def _accuracy(trainer: Trainer, module: LightningModule) -> float | None:
    score = on_selection(trainer, module)
    return None if score is None else score.accuracy
