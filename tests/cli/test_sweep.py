"""``sparselit sweep`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command

SWEEP = "sweep: {grid: {model.d_model: [8, 16]}}\n"


def test_a_sweep_is_listed_run_once_and_gone_on_with(sparselit: Command, folder: Path) -> None:
    (folder / "sizes.yaml").write_text(SWEEP)
    command = ("sweep", "--config", "quick.yaml", "--config", "sizes.yaml")
    code, out, err = sparselit(*command, "--dry_run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "2 runs: 2 missing"
    assert not (folder / "sweeps").exists()
    code, out, err = sparselit(*command, "--shard", "1/2")
    assert code == 0, err
    assert out.splitlines()[-1] == "1 runs: 1 complete in sweeps/sizes"
    code, out, err = sparselit(*command, "--trainer.max_steps", "4")
    assert code == 2
    assert "of another experiment, by trainer.max_steps" in err
    code, out, err = sparselit(*command, "--sweep.grid.model.d_model", "[8, 7]")
    assert code == 1
    assert "d_model=7: failed: " in out
    records = [json.loads(path.read_text()) for path in folder.glob("sweeps/sizes/points/*/point.json")]
    assert sorted((record["settings"]["model.d_model"], record["code"]) for record in records) == [(7, 2), (8, 0)]
    (done,) = (record for record in records if record["code"] == 0)
    run = folder / "sweeps/sizes" / done["run"]
    assert json.loads((run / "result.json").read_text())["ended"] == "max_steps"
    code, out, err = sparselit(*command, "--status")
    assert out.splitlines()[-2:] == ["2 runs: 1 complete, 1 missing", out.splitlines()[-1]]
    code, out, _ = sparselit("runs", "sweeps/sizes")
    assert code == 0
    assert run.parent.name in out


def test_a_slip_is_refused_before_anything_runs(sparselit: Command, folder: Path) -> None:
    for key, said in (("model.d_modle", "did you mean 'd_model'?"), ("model.vocab_size", "set by data.vocab_size")):
        code, _, err = sparselit("sweep", "--config", "quick.yaml", f"--sweep.grid.{key}", "[8]")
        assert code == 2
        assert said in err
        assert len(err.splitlines()) <= 2
    assert sparselit("sweep")[0] == 2
    assert sparselit("sweep", "--config", "quick.yaml")[0] == 2
    assert sparselit("sweep", "--config", "quick.yaml", "--shard", "3/2")[0] == 2
    assert not list(folder.glob("sweeps/*/points/*"))


def test_a_sweep_without_a_length_is_tried_with_the_recipe_beneath(
    sparselit: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class of sparsity comes from there; one tried batch is no length of its own."""
    monkeypatch.setattr("sparselit.sweep.engine.run_all", lambda *_: True)
    (folder / "bare.yaml").write_text("data: {class_path: Parity, init_args: {pool: 500, report: 50, selection: 20}}\n")
    code, out, err = sparselit("sweep", "--config", "bare.yaml", "--sweep.grid.sparsity.density.to", "[0.5]")
    assert code == 0, err
    assert "1 runs: 1 missing" in out
