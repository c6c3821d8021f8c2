"""Annealing that waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparselit.callbacks import AnnealedSparsity, SelfPacedSparsity

from sparselit.errors import SparselitError
from sparselit.sparsity.schedule import Schedule

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
    assert callback.clock == 0
    assert module.network[1].weight.count_nonzero() == 16 * 64


def test_the_running_loss_decides_and_is_part_of_the_state(
    make_mlp: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    callback = SelfPacedSparsity(Schedule(to=0.5), loss_below=0.5, memory=0.5)
    seen: list[tuple[float, int]] = []

    class Loss(type(make_mlp())):  # type: ignore[misc]
        """Losses 1 and 0.01 in turn: the running loss stays near 0.5 and the last one is high every second step."""

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append((1.0 if batch_idx % 2 else 0.01, callback.clock))
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
    assert (other.clock, other.running_loss) == (clock, pytest.approx(running))


@pytest.mark.parametrize(("key", "value"), [("loss_below", 0.0), ("memory", 1.0), ("memory", -0.1)])
def test_values_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(SparselitError, match=key):
        SelfPacedSparsity(0.5, **{key: value})
