"""A run that is killed, interrupted or damaged goes on to the weights of one that never was."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from sparselit.errors import SparselitError
from sparselit.runs.checkpoint_file import load_checkpoint, newest_loadable
from sparselit.runs.folder import RunFolder, checkpoints_in
from sparselit.training.run_checkpoint import AtomicCheckpointIO, RandomState, RunCheckpoint

CONFIG = """\
seed_everything: 0
data: {class_path: Parity, init_args: {batch_size: 16, pool: 2000, report: 50, selection: 20}}
model: {n_layers: 1, d_model: 8, n_heads: 2}
sparsity: {class_path: DynamicSparsity, init_args: {density: 0.3}}
trainer:
  max_steps: %d
  accelerator: cpu
  enable_progress_bar: false
  val_check_interval: 30
  callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 20}}]
"""
STEPS = 600
NO_PROCESS = 2**22 + 1  # above the largest number that a process can have
SCRIPT = Path(sys.executable).with_name("sparselit")
RESUMED = re.compile(r"resuming from step (\d+) \((.+)\)")


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, "fit", "--config", "run.yaml", *argv],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def newest(folder: Path) -> int:
    return max(RunFolder(folder / "runs/run/version_0").checkpoints(), default=0)


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 90
    while newest(folder) < step:
        assert process.poll() is None, "the run ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def folder_with_config(path: Path) -> Path:
    path.mkdir()
    (path / "run.yaml").write_text(CONFIG % STEPS)
    return path


def state(folder: Path) -> dict[str, object]:
    return load_checkpoint(folder / f"runs/run/version_0/checkpoints/step={STEPS}.ckpt")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = folder_with_config(tmp_path_factory.mktemp("uninterrupted") / "run")
    code, _, err = finish(start(folder))
    assert code == 0, err
    return state(folder)


def assert_same_weights(first: dict[str, object], second: dict[str, object]) -> None:
    for key in ("state_dict", "optimizer_states"):
        one, other = _flat(first[key]), _flat(second[key])
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name


def _flat(value: object, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {k: v for key, item in items for k, v in _flat(item, f"{name}.{key}").items()}


def kill_and_resume(folder: Path, moments: list[tuple[signal.Signals, int]], rng: random.Random) -> None:
    """Stop the run with each signal at about each step, going on in between, and let it end."""
    argv: tuple[str, ...] = ()
    for signum, step in moments:
        step = max(step, newest(folder) + 1)
        process = start(folder, *argv)
        wait_for_step(process, folder, step)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signum)
        code, _, err = finish(process)
        saved = newest(folder)
        assert_resumed(err, argv)
        if signum == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 128 + signum, err
            assert f"stopped after step {saved}; go on with:\nsparselit fit --ckpt_path runs/run/version_0" in err
        argv = ("--ckpt_path", "last")
        expected = saved
    code, out, err = finish(start(folder, *argv))
    assert code == 0, err
    assert assert_resumed(err, argv) == expected
    assert [path.name for path in (folder / "runs/run").iterdir()] == ["version_0"]
    assert not list(folder.rglob("*.tmp"))
    assert f"{STEPS} steps" in out


def assert_resumed(err: str, argv: tuple[str, ...]) -> int:
    match = RESUMED.search(err)
    assert (match is not None) == bool(argv)
    if match is None:
        return 0
    step, path = int(match[1]), match[2]
    assert step > 0
    assert path == f"runs/run/version_0/checkpoints/step={step}.ckpt"
    return step


def test_a_run_killed_at_random_moments_ends_with_the_weights_of_one_that_was_not(
    uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    rng = random.Random()
    folder = folder_with_config(tmp_path / "killed")
    steps = sorted(rng.sample(range(20, STEPS - 60), 5))
    print("killed at about", steps)
    signals = [signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    kill_and_resume(folder, list(zip(signals, steps, strict=True)), rng)
    assert_same_weights(state(folder), uninterrupted)


@pytest.mark.slow
def test_ten_kills_leave_the_weights_unchanged(uninterrupted: dict[str, object], tmp_path: Path) -> None:
    rng = random.Random()
    folder = folder_with_config(tmp_path / "killed")
    steps = sorted(rng.sample(range(20, STEPS - 60), 10))
    print("killed at about", steps)
    kill_and_resume(folder, [(signal.SIGKILL, step) for step in steps], rng)
    assert_same_weights(state(folder), uninterrupted)


TERMINATED = """\
import os, signal
from lightning.pytorch import Callback

class Terminated(Callback):
    def on_validation_end(self, trainer, pl_module):
        if trainer.global_step == 30:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_between_two_steps_lets_the_next_one_be_finished_and_kept(tmp_path: Path) -> None:
    """Lightning looks for SIGTERM itself there, and would end the run without a checkpoint."""
    folder = folder_with_config(tmp_path / "terminated")
    (folder / "mine.py").write_text(TERMINATED)
    config = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(config.replace("callbacks: [", "callbacks: [{class_path: mine.Terminated}, "))
    code, _, err = finish(start(folder))
    assert code == 128 + signal.SIGTERM, err
    assert "stopped after step 31; go on with:" in err
    assert newest(folder) == 31


def test_a_second_signal_stops_at_once_and_a_damaged_checkpoint_is_passed_over(
    uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    folder = folder_with_config(tmp_path / "damaged")
    process = start(folder)
    wait_for_step(process, folder, 60)
    process.send_signal(signal.SIGSTOP)  # both signals are pending when it goes on
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    code, _, err = finish(process)
    assert code in (130, 143)
    assert "go on with" not in err

    checkpoints = RunFolder(folder / "runs/run/version_0").checkpoints()
    *_, (step, older), (_, newer) = checkpoints.items()
    newer.write_bytes(newer.read_bytes()[: newer.stat().st_size // 2])
    (newer.parent / f"{newer.name}.{NO_PROCESS}.tmp").write_bytes(b"half")
    code, _, err = finish(start(folder, "--ckpt_path", "last"))
    assert code == 0, err
    assert f"{newer.relative_to(folder)} cannot be read; falling back to {older.name}" in err
    assert int(RESUMED.search(err)[1]) == step
    assert not list(folder.rglob("*.tmp"))
    assert_same_weights(state(folder), uninterrupted)


# -- inside one process ---------------------------------------------------------------------------------------------


class Batches(IterableDataset[tuple[torch.Tensor]]):
    """Batch k is a function of k; a resumed trainer goes on with the one that comes next."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None

    def __iter__(self):  # type: ignore[no-untyped-def]
        assert self.trainer is not None
        k = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        while True:
            yield (torch.randn(4, 6, generator=torch.Generator().manual_seed(k)),)
            k += 1


class Noisy(LightningModule):
    """A model with dropout, which draws random numbers in validation too."""

    def __init__(self, data: Batches) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        self.data = data

    def on_fit_start(self) -> None:
        self.data.trainer = self.trainer

    def training_step(self, batch: tuple[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch: tuple[torch.Tensor], batch_idx: int) -> None:
        torch.rand(7)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.05)


def train(
    folder: Path,
    steps: int,
    resume: Path | None = None,
    every: int = 4,
    accumulate: int = 1,
    validate: int = 3,
    **keep: Any,
) -> tuple[Noisy, RunCheckpoint]:
    data = Batches()
    model = Noisy(data)
    checkpoint = RunCheckpoint(every, dirpath=str(folder), **keep)
    trainer = Trainer(
        max_steps=steps,
        callbacks=[RandomState(), checkpoint],
        plugins=[AtomicCheckpointIO()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=None,
        val_check_interval=validate,
        num_sanity_val_steps=0,
    )
    torch.manual_seed(5)
    validation = DataLoader(TensorDataset(torch.zeros(1, 6)))
    trainer.fit(model, DataLoader(data, batch_size=None), validation, ckpt_path=resume)
    return model, checkpoint


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.parametrize("accumulate", [1, 3])
def test_dropout_resumes_bit_for_bit_although_validation_draws_random_numbers(tmp_path: Path, accumulate: int) -> None:
    whole, _ = train(tmp_path / "whole", 10, accumulate=accumulate)
    train(tmp_path / "half", 4, accumulate=accumulate)
    resumed, _ = train(tmp_path / "half", 10, tmp_path / "half/step=4.ckpt", accumulate=accumulate)
    other, _ = train(tmp_path / "other", 10, accumulate=accumulate, validate=10**6)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])
        assert torch.equal(weight, other.state_dict()[name]), "validation changed training"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_the_newest_checkpoints_stay_and_the_last_step_is_among_them(tmp_path: Path) -> None:
    _, checkpoint = train(tmp_path, 10)
    assert {path.name for path in tmp_path.iterdir()} == {"step=8.ckpt", "step=10.ckpt"}
    assert checkpoint.last_path == tmp_path / "step=10.ckpt"
    assert load_checkpoint(tmp_path / "step=10.ckpt")["global_step"] == 10
    seconds = checkpoint.seconds
    # files of later steps, left by a damaged end, give way when the run comes past
    (tmp_path / "step=99.ckpt").write_bytes(b"damaged")
    (tmp_path / f"step=12.ckpt.{NO_PROCESS}.tmp").write_bytes(b"half")
    _, checkpoint = train(tmp_path, 14, tmp_path / "step=10.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"step=12.ckpt", "step=14.ckpt"}
    assert checkpoint.seconds > seconds * 0.9


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, {20, 25}),
        ({"keep": 3}, {15, 20, 25}),
        ({"keep": "all"}, {5, 10, 15, 20, 25}),
        ({"at": "log"}, {20, 25}),
        ({"at": "log", "keep": 4}, {15, 16, 20, 25}),
        ({"at": "log", "keep": "all"}, {1, 2, 4, 8, 16, 20, 25}),
    ],
    ids=str,
)
@pytest.mark.parametrize("interrupted", [None, 1, 8, 20])
def test_what_is_kept_of_a_run_and_of_one_that_is_resumed(settings, left, interrupted, tmp_path: Path) -> None:
    def run(steps: int, resume: Path | None = None) -> set[int]:
        train(tmp_path, steps, resume, 5, validate=10**6, **settings)
        return set(checkpoints_in(tmp_path))

    if interrupted is not None:
        assert interrupted in run(interrupted)
    assert run(25, interrupted and tmp_path / f"step={interrupted}.ckpt") - {interrupted} == left - {interrupted}
    assert not list(tmp_path.glob("*-v*"))


def test_a_cadence_out_of_range_is_refused() -> None:
    with pytest.raises(SparselitError, match=r"RunCheckpoint\.keep must be a number of checkpoints, or all, got 'al'"):
        RunCheckpoint(keep="al")  # type: ignore[arg-type]
    with pytest.raises(SparselitError, match=r"RunCheckpoint\.at must be one of linear, log, got 'logs'"):
        RunCheckpoint(at="logs")  # type: ignore[arg-type]
    with pytest.raises(SparselitError, match=r"RunCheckpoint\.every_n_steps must be at least 1, got 0"):
        RunCheckpoint(every_n_steps=0)
    with pytest.raises(SparselitError, match=r"RunCheckpoint\.keep must be at least 1, got 0"):
        RunCheckpoint(keep=0)


def test_a_checkpoint_cut_anywhere_is_an_error_of_ours_or_loads(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.arange(100.0)}}, tmp_path / "step=2.ckpt")
    torch.save({"state_dict": {"w": torch.arange(9.0)}}, tmp_path / "step=1.ckpt")
    whole = (tmp_path / "step=2.ckpt").read_bytes()
    for length in [0, 1, 10, len(whole) // 4, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        (tmp_path / "step=2.ckpt").write_bytes(whole[:length])
        with pytest.raises(SparselitError, match="cannot be read"):
            load_checkpoint(tmp_path / "step=2.ckpt")
    path, content, damaged = newest_loadable([tmp_path / "step=2.ckpt", tmp_path / "step=1.ckpt"])
    assert path.name == "step=1.ckpt"
    assert len(content["state_dict"]["w"]) == 9
    assert damaged == [tmp_path / "step=2.ckpt"]
    with pytest.raises(SparselitError, match="no checkpoint can be read"):
        newest_loadable([tmp_path / "step=2.ckpt"])
