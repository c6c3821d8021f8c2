"""Two processes train the model that one process trains on twice the batches a step."""

from __future__ import annotations

import os
import random
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import QUICK

_COMMAND = [Path(sys.executable).with_name("sparselit"), "fit", "--config", "quick.yaml"]
_TEXTS = """\
  class_path: TextFiles
  init_args: {path: texts, vocab: 256, context: 16, batch_size: 4, train_share: 0.5, held_out: 2}
"""


@pytest.mark.parametrize("data", ["task", pytest.param("texts", marks=pytest.mark.slow)])
def test_two_processes_are_one_with_twice_the_batches(tmp_path: Path, data: str) -> None:
    """The gradients of a step are averaged over the same prompts, in another order of summing; about 20 s."""
    config = QUICK.replace("model: {", "circuits: null\nmodel: {gradient_rms: 1.0, eps: 0.1, ")
    if data == "texts":
        lines = config.splitlines(keepends=True)
        config = "".join("data:\n" + _TEXTS if line.startswith("data:") else line for line in lines)
        (tmp_path / "texts").mkdir()
        draw = random.Random(0)
        for i in range(60):
            words = ["".join(draw.choices(string.ascii_lowercase, k=4)) for _ in range(50)]
            (tmp_path / "texts" / f"{i}.txt").write_text(" ".join(words))
    (tmp_path / "quick.yaml").write_text(config)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    weights = {}
    for name, keys in (
        ("two", ("--trainer.devices", "2", "--trainer.strategy", "ddp")),
        ("one", ("--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "6")),
    ):
        done = subprocess.run(
            [*_COMMAND, *keys, "--name", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        (path,) = tmp_path.glob(f"runs/{name}/*/checkpoints/step=6.ckpt")
        weights[name] = load_checkpoint(path)["state_dict"]
    assert weights["two"].keys() == weights["one"].keys()
    for key, tensor in weights["two"].items():
        torch.testing.assert_close(tensor, weights["one"][key], rtol=1e-4, atol=1e-6, msg=key)
