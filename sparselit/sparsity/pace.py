"""When a self-paced density falls, when it is taken back, and when it is given up: decisions on plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a step asks for.
Verdict = Literal["fall", "wait", "spike", "stall", "give up"]

#: What a rollback multiplies the pace and the learning rate with.
SLOWER = 0.7
#: Learning rate, as a share of the one asked for, below which another rollback is not worth while.
SLOWEST = 0.05


@dataclass
class Pace:
    """The clock of a schedule that only runs while the loss is low.

    Attributes:
        clock: where on the schedule the run is, optimizer steps.
        speed: steps by which the clock advances in one step, in (0, 1].
        lr_factor: what the learning rate is multiplied with, in (0, 1].
        running_loss: running mean of the training loss, nats; null before the first step.
        waited: steps since the clock last advanced or was put back.
        spikes: rollbacks because the loss rose.
        stalls: rollbacks because nothing moved.
        given_up: whether the clock has stopped for good.
    """

    clock: float = 0.0
    speed: float = 1.0
    lr_factor: float = 1.0
    running_loss: float | None = None
    waited: int = 0
    spikes: int = 0
    stalls: int = 0
    given_up: bool = False

    @property
    def rollbacks(self) -> int:
        """Number of times the run was taken back."""
        return self.spikes + self.stalls

    def observe(
        self,
        loss: float,
        below: float,
        memory: float,
        spike: float | None,
        patience: int | None,
        can_return: bool,
        at_end: bool,
    ) -> Verdict:
        """Take one step's loss into account.

        Args:
            loss: training loss of the step, nats.
            below: loss under which the density falls, nats.
            memory: weight of the past in the running loss, in [0, 1).
            spike: multiple of ``below`` at which the running loss asks for a rollback; null for never.
            patience: steps without an advance that ask for one; null for never.
            can_return: whether there is a snapshot.
            at_end: whether the schedule has nothing left to do, so that waiting is no stall.

        Returns:
            What the step asks for; ``fall`` has advanced the clock already, unless the run was given up.
        """
        past = loss if self.running_loss is None else self.running_loss
        self.running_loss = memory * past + (1 - memory) * loss
        if max(loss, self.running_loss) < below:
            self.clock += 0.0 if self.given_up else self.speed
            self.waited = 0
            return "fall"
        self.waited += 1
        reason: Verdict = "wait"
        if spike is not None and not self.running_loss <= spike * below:  # NaN too
            reason = "spike"
        elif patience is not None and self.waited > patience and not at_end:
            reason = "stall"
        if reason == "wait" or not can_return:
            return "wait"
        return "give up" if self.lr_factor * SLOWER < SLOWEST and not self.given_up else reason

    def back_to(self, clock: float, running_loss: float | None, reason: Verdict) -> None:
        """Be where a snapshot was, and go on more slowly.

        Args:
            clock: the snapshot's clock.
            running_loss: its running loss.
            reason: why.
        """
        self.clock, self.running_loss, self.waited = clock, running_loss, 0
        self.spikes += reason == "spike"
        self.stalls += reason == "stall"
        self.given_up = self.given_up or reason == "give up"
        self.speed *= SLOWER
        self.lr_factor = max(SLOWEST, self.lr_factor * SLOWER)
