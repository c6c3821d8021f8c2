"""When a self-paced density falls, when it is taken back, and when it is given up: decisions on plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: What a step calls for.
Verdict = Literal["fall", "wait", "spike", "stall", "give up", "begin again"]

#: What a rollback multiplies the pace and the learning rate with.
SLOWER = 0.7
#: Learning rate, as a share of the configured one, below which another rollback is not worth while.
SLOWEST = 0.05
#: Share of its lowest value below which the running loss counts as having come down.
LOWER = 0.95


@dataclass
class Pace:
    """The clock of a schedule that only runs while the loss is low.

    Attributes:
        clock: where on the schedule the run is, optimizer steps.
        speed: steps by which the clock advances in one step, in (0, 1].
        lr_factor: what the learning rate is multiplied with, in (0, 1].
        running_loss: running mean of the training loss, nats; None before the first step.
        waited: steps since the clock last advanced or was put back.
        spikes: rollbacks because the loss rose.
        stalls: rollbacks because nothing moved.
        given_up: whether the clock has stopped for good.
        lowest: lowest running loss so far, nats, as far as it came down noticeably.
        standing: steps since then.
        begun_again: whether the run went back to its first weights, because nothing was learned from them.
    """

    clock: float = 0.0
    speed: float = 1.0
    lr_factor: float = 1.0
    running_loss: float | None = None
    waited: int = 0
    spikes: int = 0
    stalls: int = 0
    given_up: bool = False
    lowest: float = math.inf
    standing: int = 0
    begun_again: bool = False

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
        held_out: float = 0.0,
    ) -> Verdict:
        """Take one step's loss into account.

        Args:
            loss: training loss of the step, nats.
            below: loss under which the density falls, nats.
            memory: weight of the past in the running loss, in [0, 1).
            spike: multiple of ``below`` at which the running loss causes a rollback; None for never.
            patience: steps without an advance that cause one; None for never.
            can_return: whether there is a snapshot.
            at_end: whether the schedule has nothing left to do, so that waiting is no stall.
            held_out: loss on prompts that are not trained on, nats, which must be as low as the running one; infinity
                where it is not known.

        Returns:
            What the step calls for; ``fall`` has advanced the clock already, unless the run was given up;
            ``begin again`` means that there is no snapshot, and that the loss is high and has not come down for
            ``patience`` steps.
        """
        past = loss if self.running_loss is None else self.running_loss
        self.running_loss = memory * past + (1 - memory) * loss
        self.standing += 1
        if self.running_loss < LOWER * self.lowest:
            self.lowest, self.standing = self.running_loss, 0
        if all(value < below for value in (loss, self.running_loss, held_out)):
            self.clock += 0.0 if self.given_up else self.speed
            self.waited = 0
            return "fall"
        self.waited += 1
        reason: Verdict = "wait"
        if not can_return:
            stuck = patience is not None and self.standing > patience and self.running_loss >= below
            return "begin again" if stuck and not self.begun_again else "wait"
        if spike is not None and (not self.running_loss <= spike * below or spike * below < held_out < math.inf):  # NaN
            reason = "spike"
        elif patience is not None and self.waited > patience and not at_end:
            reason = "stall"
        if reason == "wait":
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

    def begin_again(self) -> None:
        """Be where the run began; once is enough."""
        self.running_loss, self.lowest, self.waited, self.standing = None, math.inf, 0, 0
        self.begun_again = True

    def explanation(self, below: float, waits: int, steps: int) -> str:
        """What kept the density from falling, in words.

        Args:
            below: loss under which it falls, nats.
            waits: steps on which it did not.
            steps: all steps.
        """
        text = f"the running loss was above {below} for {waits} of {steps} steps"
        if self.begun_again:
            text += ", the run began again without its penalty"
        if self.rollbacks:
            text += f", with {self.spikes} rollbacks after a rise and {self.stalls} after a standstill"
        return text
