"""The comparison of two folders of runs finds one changed byte and one changed bit of a tensor, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.same_runs import compare


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    run = tmp_path / "before" / "quotes" / "version_0"
    (run / "circuits").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "circuits" / "step=1.json").write_text("{}", encoding="utf-8")
    (run / "circuits" / "step=1.timing.json").write_text("1", encoding="utf-8")
    weights = {"weight": torch.tensor([0.5, torch.nan])}
    state = {"state_dict": weights, "optimizer_states": [{"state": {0: {"step": 1}}}], "global_step": 1}
    torch.save(state, run / "checkpoints" / "step=1.ckpt")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    return tmp_path / "before", tmp_path / "after"


def test_a_copy_is_the_same_whatever_the_wall_times_are(folders: tuple[Path, Path]) -> None:
    (folders[1] / "quotes/version_0/circuits/step=1.timing.json").write_text("2", encoding="utf-8")
    assert compare(*folders) == (2, [])


def test_a_changed_byte_a_changed_tensor_and_a_missing_file_are_named(folders: tuple[Path, Path]) -> None:
    run = folders[1] / "quotes" / "version_0"
    (run / "circuits" / "step=1.json").write_text("[]", encoding="utf-8")
    state = torch.load(run / "checkpoints" / "step=1.ckpt", weights_only=True)
    state["state_dict"]["weight"][0] += 1e-7
    torch.save(state, run / "checkpoints" / "step=1.ckpt")
    (run / "circuits" / "step=2.json").write_text("{}", encoding="utf-8")
    count, told = compare(*folders)
    assert count == 3
    assert [line.split("version_0/")[1] for line in told] == [
        "checkpoints/step=1.ckpt: state_dict.weight",
        "circuits/step=1.json: other bytes",
        "circuits/step=2.json is missing",
    ]
