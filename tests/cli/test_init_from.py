"""``fit --init_from``: a new run with the weights of another model, and with nothing else of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sparselit.cli import main
from sparselit.interop import load_openai, openai_to_checkpoint
from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import QUICK, Command
from .test_convert import checkpoint

FIT = ("fit", "--config", "quick.yaml")
FIRST = "runs/quick/version_0/checkpoints/step=6.ckpt"


def state(path: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["state_dict"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "quick.yaml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        main(list(FIT))
    return folder


@pytest.fixture
def trained(finished: Path, folder: Path) -> Path:
    """The folder of that run, in the current folder."""
    shutil.copytree(finished / "runs", folder / "runs")
    return folder / "runs/quick/version_0"


def test_weights_are_taken_and_optimizer_schedule_and_density_begin_anew(sparselit: Command, trained: Path) -> None:
    kept = state(FIRST)
    outcome = sparselit(*FIT, "--init_from", str(trained), "--sparsity.density", "0.5", "--trainer.max_steps", "2")
    assert outcome.code == 0
    assert f"weights of {FIRST}, and nothing else of it: {len(kept)} tensors whole, 0 in part, 0 new" in outcome.err
    assert "% of its matrices is not zero" in outcome.err
    content = load_checkpoint("runs/quick/version_1/checkpoints/step=2.ckpt")
    assert content["global_step"] == 2
    matrix = content["state_dict"]["transformer.layers.0.attn.q.weight"]
    assert int(matrix.count_nonzero()) == matrix.numel() // 2
    assert int(kept["transformer.layers.0.attn.q.weight"].count_nonzero()) < matrix.numel() // 4

    again = sparselit(
        *FIT, "--ckpt_path", "runs/quick/version_1", "--sparsity.density", "0.5", "--trainer.max_steps", "3"
    )
    assert "weights of" not in again.err  # what a run goes on from is its own
    saved = yaml.safe_load(Path("runs/quick/version_1/config.yaml").read_text())
    assert saved["init_from"] == str(trained.absolute())


def test_without_a_step_the_model_is_the_one_that_was_named(sparselit: Command, trained: Path) -> None:
    rate = ("--model.lr", "0", "--sparsity", "null", "--trainer.max_steps", "1")
    assert sparselit(*FIT, "--init_from", FIRST, *rate).code == 0
    kept, now = state(FIRST), state("runs/quick/version_1/checkpoints/step=1.ckpt")
    assert all(torch.equal(now[name], kept[name]) for name in kept)
    assert kept.keys() == now.keys()


def test_a_key_of_the_configuration_does_the_same(sparselit: Command, trained: Path) -> None:
    Path("from.yaml").write_text(f"init_from: {FIRST}\n")
    outcome = sparselit(*FIT, "--config", "from.yaml", "--trainer.max_steps", "1")
    assert f"weights of {FIRST}" in outcome.err
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    assert "weights of" in sparselit("fit", "--config", "../runs/quick/version_1/config.yaml").err
    assert sparselit("test", "--ckpt_path", "../runs/quick/version_1").code == 0


def test_another_shape_takes_what_fits_and_says_what_does_not(sparselit: Command, trained: Path) -> None:
    shape = ("--model.d_model", "12", "--model.n_layers", "2", "--trainer.max_steps", "1")
    lines = sparselit(*FIT, "--init_from", FIRST, *shape).err.splitlines()
    assert "  8 x 8 of 12 x 12 (there 8 x 8): " in "\n".join(lines)
    assert "  new: transformer.layers.1.*" in lines
    assert "  model.d_model: 12 here, 8 there" in lines
    assert len(lines) < 20


@pytest.mark.parametrize("form", ["folder", "converted"])
def test_a_model_of_another_format_is_a_start_as_well(form: str, sparselit: Command, folder: Path) -> None:
    path = str(checkpoint(folder / "released"))
    wanted = load_openai(path).state_dict()
    if form == "converted":
        openai_to_checkpoint(path, path := "model.ckpt")
    Path("shape.yaml").write_text(
        "model: {n_layers: 1, n_heads: 2, d_head: 3, d_model: 6, d_mlp: 7, lr: 0}\nsparsity: null\n"
    )
    outcome = sparselit(*FIT, "--config", "shape.yaml", "--init_from", path, "--trainer.max_steps", "1")
    assert outcome.code == 0, outcome.err
    now = state("runs/quick/version_0/checkpoints/step=1.ckpt")
    assert torch.equal(now["transformer.layers.0.mlp.up.weight"], wanted["layers.0.mlp.up.weight"])
    assert torch.equal(now["transformer.unembed.weight"], wanted["unembed.weight"][:3])  # of the task's three tokens
    assert "not used: transformer.layers.0.attn.sink" in outcome.err


def empty(folder: Path) -> Any:
    return ""


def cut(folder: Path) -> Any:
    content = Path(FIRST).read_bytes()
    Path("cut.ckpt").write_bytes(content[: len(content) // 2])
    return "cut.ckpt"


def alien(folder: Path) -> Any:
    torch.save({"state_dict": {"encoder.weight": torch.ones(2, 2)}}, "alien.ckpt")
    return "alien.ckpt"


def bare(folder: Path) -> Any:
    torch.save({"state_dict": {}}, "bare.ckpt")
    return "bare.ckpt"


def not_finite(folder: Path) -> Any:
    content = load_checkpoint(FIRST)
    content["state_dict"]["transformer.unembed.weight"][0, 0] = float("nan")
    torch.save(content, "nan.ckpt")
    return "nan.ckpt"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (empty, "init_from '' does not exist; name a checkpoint"),
        (lambda folder: "nowhere.ckpt", "init_from 'nowhere.ckpt' does not exist; name a checkpoint"),
        (lambda folder: "null", "init_from 'null' does not exist"),
        (lambda folder: ".", "init_from: . holds neither a run's checkpoints nor a beeg_config.json"),
        (lambda folder: "quick.yaml", "init_from: 'quick.yaml' cannot be read"),
        (cut, "init_from: 'cut.ckpt' cannot be read: it is truncated, damaged or not a checkpoint"),
        (alien, "no tensor of alien.ckpt fits this model: it holds encoder.weight, here is transformer.embed.token"),
        (bare, "no tensor of bare.ckpt fits this model: it holds no tensor"),
        (not_finite, "nan.ckpt holds numbers that are not finite in transformer.unembed.weight"),
    ],
)
def test_what_cannot_be_a_start_is_refused_in_two_lines(source, message, sparselit: Command, trained: Path) -> None:
    outcome = sparselit(*FIT, "--init_from", source(trained))
    assert outcome.code == 2
    assert message in outcome.err
    assert len([line for line in outcome.err.splitlines() if line]) <= 2
    assert not Path("runs/quick/version_1").exists()


def test_going_on_and_beginning_anew_exclude_each_other(sparselit: Command, folder: Path) -> None:
    outcome = sparselit(*FIT, "--init_from", "a.ckpt", "--ckpt_path", "last")
    assert outcome.code == 2
    assert "give one of them" in outcome.err
