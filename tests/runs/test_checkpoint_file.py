"""A checkpoint that was damaged anywhere is refused, or is the same in every tensor."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from benchmarks.same_runs import differences
from sparselit.errors import SparselitError
from sparselit.runs.checkpoint_file import load_checkpoint


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_noticed_wherever_it_is(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    content = {"state_dict": {"a": torch.randn(200, 3), "b": torch.arange(7)}, "global_step": 5, "words": ["x", "y"]}
    file = tmp_path / "step=5.ckpt"
    torch.save(content, file)
    whole, rng, refused = file.read_bytes(), random.Random(seed), 0
    for _ in range(150):
        place = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            read = load_checkpoint(file)
        except SparselitError:
            refused += 1
        else:  # in the padding between two entries
            assert list(differences(content, read)) == []
    assert refused > 50
