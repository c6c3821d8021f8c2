"""Runs the command line inside the test process: a process of its own costs four seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sparselit.cli import main

QUICK = """\
seed_everything: 0
data: {class_path: Parity, init_args: {batch_size: 16, pool: 500, report: 50, selection: 20}}
model: {n_layers: 1, d_model: 8, n_heads: 2}
sparsity: {class_path: AnnealedSparsity, init_args: {density: {to: 0.2, end: 0.5}}}
trainer:
  max_steps: 6
  accelerator: cpu
  enable_progress_bar: false
  val_check_interval: 3
  callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 2}}]
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with ``quick.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path


@pytest.fixture
def sparselit(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command line; gives the exit code and both outputs."""
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*argv: str) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main(list(argv))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    yield run
    torch.set_num_threads(threads)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def files_in(folder: Path) -> set[str]:
    """All files and folders below, relative."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
