"""Going on with other settings of sparsity and circuits: told in a line each; no sparse run becomes dense unasked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import QUICK, Command

SEARCHED = QUICK + "circuits: {every_n_steps: 1000, begin: {step: 1000}}\n"
RUN = Path("runs/run/version_0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of six steps, whose density has come to 0.2."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "run.yaml").write_text(SEARCHED)
    script = Path(sys.executable).with_name("sparselit")
    subprocess.run([script, "fit", "--config", "run.yaml"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def living(path: Path) -> int:
    tensors = load_checkpoint(path)["state_dict"]
    return sum(int(tensor.count_nonzero()) for tensor in tensors.values() if tensor.ndim > 1)


def changed(**settings: object) -> str:
    """The configuration with other keys; None takes one out."""
    config = {**yaml.safe_load(SEARCHED), **settings}
    return yaml.safe_dump({key: value for key, value in config.items() if value is not None})


@pytest.mark.parametrize("where", ["last", str(RUN), str(RUN / "checkpoints/step=6.ckpt")])
def test_nothing_is_told_where_nothing_has_changed(where: str, sparselit: Command, folder: Path) -> None:
    code, _, err = sparselit("fit", "--config", "run.yaml", "--ckpt_path", where)
    assert code == 0, err
    assert "from now on" not in err


@pytest.mark.parametrize("where", ["last", str(RUN), str(RUN / "checkpoints/step=6.ckpt")])
def test_a_longer_run_stays_as_sparse_as_it_was(where: str, sparselit: Command, folder: Path) -> None:
    code, _, err = sparselit("fit", "--config", "run.yaml", "--ckpt_path", where, "--trainer.max_steps", "40")
    assert code == 0, err
    assert "trainer.max_steps: 40 from now on, 6 until step 6\n" in err
    assert err.count("from now on") == 1
    run = RUN if "ckpt" not in where else RUN.with_name("version_1")
    assert living(run / "checkpoints/step=40.ckpt") == 185


CHANGES = [
    (("--sparsity.density.to", "0.1"), "sparsity.density.to: 0.1 from now on, 0.2 until step 6"),
    (("--sparsity.density.end", "0.9"), "sparsity.density.end: 0.9 from now on, 0.5 until step 6"),
    (("--sparsity.moments", "reset"), "sparsity.moments: reset from now on, keep until step 6"),
    (("--sparsity.density", "0.15"), "sparsity.density: 0.15 from now on, null until step 6"),
    (
        ("--sparsity", "GradualPruning", "--sparsity.density", "0.2"),
        "sparsity: sparselit.callbacks.GradualPruning from now on, sparselit.callbacks.AnnealedSparsity until step 6",
    ),
    (("--circuits.every_n_steps", "500"), "circuits.every_n_steps: 500 from now on, 1000 until step 6"),
    (("--circuits.begin.step", "900"), "circuits.begin.step: 900 from now on, 1000 until step 6"),
    (("--circuits.ablation", "zero"), "circuits.ablation: zero from now on, mean until step 6"),
    (("--circuits", "null"), "circuits: null from now on, sparselit.callbacks.CircuitDiscovery until step 6"),
]


@pytest.mark.parametrize(("options", "line"), CHANGES, ids=[options[0] + "=" + options[1] for options, _ in CHANGES])
def test_a_changed_setting_is_told_in_one_line(options, line, sparselit: Command, folder: Path) -> None:
    code, _, err = sparselit("fit", "--config", "run.yaml", "--ckpt_path", "last", *options)
    assert code == 0, err
    assert sum(row.startswith(line) for row in err.splitlines()) == 1, err
    told = [row for row in err.splitlines() if "from now on" in row]
    assert len(told) == (1 if options[0] != "--sparsity.density" else len(told)), err
    assert living(RUN / "checkpoints/step=6.ckpt") == 185


@pytest.mark.parametrize("where", ["last", str(RUN), str(RUN / "checkpoints/step=6.ckpt"), "elsewhere.ckpt"])
@pytest.mark.parametrize("how", ["null", "no key", "rules"])
def test_a_sparse_run_becomes_dense_only_by_an_explicit_word(where, how, sparselit: Command, folder: Path) -> None:
    if where == "elsewhere.ckpt":
        shutil.move(RUN / "checkpoints/step=6.ckpt", where)
    if how == "no key":
        (folder / "run.yaml").write_text(changed(sparsity=None))
    rule = ("--sparsity.rules", "[{match: '*attn.q*', density: null}]")
    options = {"null": ("--sparsity", "null"), "no key": (), "rules": rule}[how]
    command = ("fit", "--config", "run.yaml", "--ckpt_path", where, "--trainer.max_steps", "9", *options)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = sparselit(*command)
    assert code == 2
    name = "transformer.layers.0.attn.q.weight" if how == "rules" else "transformer.embed.token.weight"
    assert f"is sparse and nothing keeps it so: {name} (density 0.2" in err
    assert "--allow_dense true" in err
    assert len(err.splitlines()) <= 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    code, _, err = sparselit(*command, "--allow_dense", "true")
    assert code == 0, err
    (newest,) = folder.rglob("step=9.ckpt")
    assert living(newest) > 185
    assert "allow_dense" not in (newest.parent.parent / "config.yaml").read_text()
