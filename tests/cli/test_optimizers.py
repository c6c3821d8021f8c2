"""The keys ``optimizer`` and ``lr_scheduler``, as Lightning's users know them, beside the model's own arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import Command

FIT = ("fit", "--config", "quick.yaml")
SGD = ("--optimizer", "SGD", "--optimizer.lr", "0.1")
RUN = Path("runs/quick/version_0")


def rates(step: int, run: Path = RUN) -> list[float]:
    (optimizer,) = load_checkpoint(run / f"checkpoints/step={step}.ckpt")["optimizer_states"]
    return [group["lr"] for group in optimizer["param_groups"]]


def test_a_schedule_counts_steps_and_goes_on_after_a_resume(sparselit: Command) -> None:
    schedule = ("--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "4")
    outcome = sparselit(*FIT, *SGD, *schedule)
    assert outcome.code == 0, outcome.err
    assert "optimizer: torch.optim.SGD; model.lr, betas, eps, weight_decay" in outcome.err
    assert rates(6) == pytest.approx([0.01])
    outcome = sparselit("fit", "--ckpt_path", str(RUN), "--trainer.max_steps", "8")
    assert outcome.code == 0, outcome.err
    assert rates(8) == pytest.approx([0.001])


def test_a_schedule_that_waits_is_told_the_value_of_each_validation(sparselit: Command) -> None:
    waiting = ("--lr_scheduler", "ReduceLROnPlateau", "--lr_scheduler.monitor", "val/loss")
    never_better = ("--lr_scheduler.threshold", "100", "--lr_scheduler.patience", "0", "--trainer.max_steps", "9")
    outcome = sparselit(*FIT, *SGD, *waiting, *never_better)
    assert outcome.code == 0, outcome.err
    assert rates(9) == pytest.approx([0.001])  # the first of three validations is the best yet


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("--optimizer", "SDG"), "optimizer: no class 'SDG' of kind Optimizer"),
        (("--optimizer", "SGD", "--optimizer.lrr", "1"), "optimizer.lrr: SGD has no such argument; did you mean 'lr'?"),
        (("--optimizer.lr", "1"), "optimizer: name a class first, as in --optimizer AdamW"),
        (("--optimizer", "SGD", "--optimizer.lr", "-1"), "optimizer, lr_scheduler: Invalid learning rate: -1.0"),
        (("--lr_scheduler", "ExponentialLR", "--lr_scheduler.gamma", "0.9"), "lr_scheduler needs optimizer"),
        ((*SGD, "--lr_scheduler", "StepR"), "no class 'StepR' of kind LRScheduler; did you mean 'StepLR'?"),
        ((*SGD, "--lr_scheduler", "StepLR"), "lr_scheduler: step_size must be given"),
        (
            (*SGD, "--lr_scheduler", "ReduceLROnPlateau", "--lr_scheduler.monitor", "val/los"),
            "nothing in this run logs 'val/los'; did you mean 'val/loss'?",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    keys: tuple[str, ...], said: str, sparselit: Command, folder: Path
) -> None:
    outcome = sparselit(*FIT, *keys)
    assert outcome.code == 2
    assert said in outcome.err.splitlines()[-1]
    assert not list(folder.glob("runs/*/*"))
