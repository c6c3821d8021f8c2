"""A checkpoint that was damaged anywhere is refused, or is the same in every tensor."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.same_runs import differences
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
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


ODD = (
    None,
    1,
    -1,
    2**70,
    True,
    0.5,
    "x",
    [],
    {},
    [1],
    {"a": 1},
    {1: 2},
    {"": {}},
    torch.zeros(2),
    {"a": torch.zeros(2)},
)
#: Of each part of a checkpoint, which of these it may be.
RIGHT: dict[str, tuple[Any, ...]] = {
    "state_dict": ({}, {"a": torch.zeros(2)}),
    "global_step": (1,),
    "epoch": (1,),
    "hyper_parameters": ({}, {"a": 1}, {"a": torch.zeros(2)}),
    "datamodule_hyper_parameters": ({}, {"a": 1}, {"a": torch.zeros(2)}),
    "callbacks": ({},),
    "optimizer_states": ([],),
    "lr_schedulers": ([],),
    "loops": ({}, {"a": 1}, {"a": torch.zeros(2)}),
}


@pytest.mark.parametrize("part", RIGHT)
def test_a_part_of_another_type_is_named_and_a_missing_one_is_not_missed(part: str, tmp_path: Path) -> None:
    file = tmp_path / "step=5.ckpt"
    for value in ODD:
        torch.save({"state_dict": {}, part: value}, file)
        if any(repr(value) == repr(right) for right in RIGHT[part]):
            load_checkpoint(file)
        else:
            with pytest.raises(SparselitError, match=part):
                load_checkpoint(file)
    torch.save({"state_dict": {}}, file)
    load_checkpoint(file)


def test_a_state_that_a_module_adds_itself_may_be_anything(tmp_path: Path) -> None:
    torch.save({"state_dict": {"scale._extra_state": 1, "a": torch.zeros(2)}}, tmp_path / "step=5.ckpt")
    load_checkpoint(tmp_path / "step=5.ckpt")


@pytest.mark.parametrize(
    ("hyper_parameters", "tensors"),
    [
        ({}, {}),
        ({"d_model": 2**40}, {}),
        ({"d_model": "x"}, {}),
        ({"vocab_size": 3, "max_length": 4}, {"x": torch.zeros(1)}),
    ],
)
def test_a_checkpoint_of_another_model_is_no_transformer(hyper_parameters, tensors, tmp_path: Path) -> None:
    state = {f"transformer.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters}, tmp_path / "a.ckpt")
    with pytest.raises(SparselitError, match=r"a\.ckpt.*holds no transformer"):
        Transformer.from_checkpoint(tmp_path / "a.ckpt")
