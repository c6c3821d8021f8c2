"""Resumed from every step, a run ends with the bytes of the run that went through, whatever its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sparselit.callbacks import AnnealedSparsity, RiglSparsity, SelfPacedSparsity
from sparselit.tasks import Parity
from torch import Tensor
from torch.nn import functional as F

from sparselit.data.examples import Examples
from sparselit.modules import SparseTransformer
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.sparsity import Schedule
from sparselit.training.run_checkpoint import AtomicCheckpointIO, RandomState, RunCheckpoint
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import flat, members, registered

pytestmark = [
    pytest.mark.filterwarnings("ignore:the density stopped"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),  # data follow the step
]

STEPS = 24
#: Batches of an epoch and of an optimizer step: the last step of each epoch has one batch only.
EPOCH, ACCUMULATED = 7, 2
#: Steps at which the self-paced run is told that its loss has risen.
RISES = (6, 11)

METHODS: dict[str, Callable[[], Sparsifier]] = {
    "RigL": lambda: RiglSparsity(0.2, every_n_steps=3),
    "projection": lambda: AnnealedSparsity(Schedule(to=0.05, begin=2, end=22, shape="cubic"), moments="reset"),
    "self-paced": lambda: SelfPacedSparsity(
        Schedule(to=0.1, end=18, shape="exponential"),
        loss_below=1.5,
        memory=0.0,
        shrink=0.1,
        finish=0.8,
        hold=0.3,
        held_out=3,
    ),
}
#: Every other registered method, resumed at one step in its short run.
OTHERS = {
    name: member.usual
    for name, member in members().items()
    if name in registered() and not any(type(make()) is member.kind for make in METHODS.values())
}


class Noisy(SparseTransformer):
    """A transformer with dropout, whose reported loss rises where it is told to."""

    rises: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__(vocab_size=3, max_length=9, n_layers=1, d_model=8, n_heads=2, lr=0.01)
        for parameter in self.parameters():  # a resumed run must not need these
            parameter.data.normal_(0, 0.1)
        self.transformer.layers[0].mlp.register_forward_hook(lambda *a: F.dropout(a[2], 0.3, self.training))

    def training_step(self, batch: Examples, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + (9.0 if self.trainer.global_step in self.rises else 0.0)


def run(folder: Path, method: str, workers: int, ckpt_path: Path | None = None) -> Sparsifier:
    """Train, or go on from a checkpoint in a process that knows nothing else, and keep a checkpoint of every step."""
    torch.manual_seed(1 if ckpt_path is None else 77)
    module: LightningModule = Noisy()
    module.rises = RISES if method == "self-paced" else ()
    sparsity = {**METHODS, **OTHERS}[method]()
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        accumulate_grad_batches=ACCUMULATED,
        limit_train_batches=EPOCH,
        val_check_interval=1.0,
        check_val_every_n_epoch=2,
        gradient_clip_val=1.0,
        callbacks=[sparsity, RandomState(), RunCheckpoint(1, keep=STEPS, dirpath=str(folder))],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Parity(length=8, batch_size=4, discovery=8, selection=16, report=8, num_workers=workers)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return sparsity


def state(folder: Path) -> dict[str, Tensor]:
    """Weights, moments, schedulers and the sparsifier's and the generator's state after the last step."""
    found = load_checkpoint(folder / f"step={STEPS}.ckpt")
    callbacks = {name: content for name, content in found["callbacks"].items() if "RunCheckpoint" not in name}
    kept = {key: found[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")}
    return dict(flat(kept | {"of": callbacks}))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumed_at_some_steps_ends_with_the_same_bytes(method: str, tmp_path: Path) -> None:
    compare(method, 0, (3, 6, 12, 20), tmp_path)  # of an exchange, of a rise, the last of an epoch, locked


@pytest.mark.parametrize("method", OTHERS)
def test_every_other_method_resumed_ends_with_the_same_bytes(method: str, tmp_path: Path) -> None:
    compare(method, 0, (6,), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_a_run_resumed_at_any_step_ends_with_the_same_bytes(method: str, workers: int, tmp_path: Path) -> None:
    compare(method, workers, range(1, STEPS), tmp_path)


def compare(method: str, workers: int, points: Iterable[int], tmp_path: Path) -> None:
    """Train once, go on from the checkpoint of each of some steps, and compare everything that is left at the end."""
    sparsity = run(tmp_path / "whole", method, workers)
    if isinstance(sparsity, SelfPacedSparsity):  # or there would be nothing special to resume
        assert sparsity.pace.spikes == len(RISES)
        assert sparsity.locked
    whole = state(tmp_path / "whole")
    for step in points:
        run(tmp_path / f"{step}", method, workers, tmp_path / f"whole/step={step}.ckpt")
        resumed = state(tmp_path / f"{step}")
        assert resumed.keys() == whole.keys(), step
        for name, tensor in whole.items():
            assert tensor.numpy().tobytes() == resumed[name].numpy().tobytes(), (step, name)


def test_the_runs_do_use_dropout_and_workers_do_not_change_them(tmp_path: Path) -> None:
    run(tmp_path / "none", "projection", 0)
    run(tmp_path / "two", "projection", 2)
    first, second = state(tmp_path / "none"), state(tmp_path / "two")
    assert all(tensor.numpy().tobytes() == second[name].numpy().tobytes() for name, tensor in first.items())
    start = load_checkpoint(tmp_path / "none/step=5.ckpt")
    for content in start["callbacks"].values():
        if "cpu" in content:
            content["cpu"] = torch.Generator().manual_seed(9).get_state()
    torch.save(start, tmp_path / "other.ckpt")
    run(tmp_path / "other", "projection", 0, tmp_path / "other.ckpt")
    other = state(tmp_path / "other")
    key = next(name for name in first if name.endswith("mlp.up.weight"))
    assert not torch.equal(first[key], other[key])
