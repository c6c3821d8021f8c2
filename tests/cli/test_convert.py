"""``sparselit convert`` as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.model.transformer import Transformer

from .conftest import Command

CONFIG: dict[str, Any] = {
    "block_size": 4,
    "vocab_size": 5,
    "n_layer": 1,
    "n_head": 2,
    "d_head": 3,
    "d_model": 6,
    "d_mlp": 7,
    "bias": False,
    "ln_bias": True,
    "rms_norm": True,
    "residual_activation_type": "identity",
    "activation_type": "relu",
    "afrac": 0.5,
    "afrac_loctypes": "attn_in,mlp_neuron,resid_post_mlp",
    "tied_unembed": False,
    "enable_bigram_table": False,
    "learnable_bigram_table": False,
    "d_pos_emb": None,
    "sink": True,
    "flash": True,
    "tokenizer_name": "tinypython_2k",
    "dropout": 0.1,
}


def checkpoint(folder: Path) -> Path:
    """A checkpoint of the release's format with some zeros."""
    shapes = {
        "transformer.wte.weight": (5, 6),
        "transformer.wpe.weight": (4, 6),
        "transformer.h.0.ln_1.weight": (6,),
        "transformer.h.0.ln_2.weight": (6,),
        "transformer.h.0.attn.c_attn.weight": (18, 6),
        "transformer.h.0.attn.c_proj.weight": (6, 6),
        "transformer.h.0.attn.attn_imp.sink_logit": (2,),
        "transformer.h.0.mlp.c_fc.weight": (7, 6),
        "transformer.h.0.mlp.c_proj.weight": (6, 7),
        "transformer.ln_f.weight": (6,),
        "lm_head.weight": (5, 6),
        "final_logits_bias": (5,),
    }
    generator = torch.Generator().manual_seed(0)
    folder.mkdir()
    state = {name: torch.randn(shape, generator=generator).relu() for name, shape in shapes.items()}
    torch.save(state, folder / "final_model.pt")
    (folder / "beeg_config.json").write_text(json.dumps(CONFIG))
    return folder


def sparselit(*argv: str, cwd: Path) -> tuple[int, str, str]:
    script = Path(sys.executable).with_name("sparselit")
    done = subprocess.run([script, *argv], capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def test_there_and_back_is_exact_and_the_checkpoint_works_with_the_other_commands(tmp_path: Path) -> None:
    checkpoint(tmp_path / "released")
    code, out, err = sparselit("convert", "released", "model.ckpt", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("model.ckpt: 1 layers, 337 parameters, ")
    model = Transformer.from_checkpoint(tmp_path / "model.ckpt")
    assert (model.d_mlp, model.sites["layers.0.mlp.act"].keep) == (7, 3)

    code, out, err = sparselit("density", "model.ckpt", "--json", cwd=tmp_path)
    assert (code, err) == (0, "")
    rows = {row["name"]: row["nonzero"] for row in json.loads(out)["tensors"]}
    state = torch.load(tmp_path / "released" / "final_model.pt", weights_only=True)
    assert next(n for name, n in rows.items() if "unembed.weight" in name) == int(
        state["lm_head.weight"].count_nonzero()
    )

    code, out, err = sparselit("convert", "model.ckpt", "back", cwd=tmp_path)
    assert (code, err) == (0, "")
    again = torch.load(tmp_path / "back" / "final_model.pt", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert json.loads((tmp_path / "back" / "beeg_config.json").read_text()) == CONFIG


def test_a_checkpoint_of_our_own_training_goes_out_and_comes_back(sparselit: Command, folder: Path) -> None:
    norm = ("--model.norm", "rms", "--model.norm_eps", "1.1920928955078125e-07")
    assert sparselit("fit", "--config", "quick.yaml", *norm, "--trainer.default_root_dir", "runs").code == 0
    (trained,) = folder.rglob("step=6.ckpt")
    assert sparselit("convert", str(trained), "released").code == 0
    assert sparselit("convert", "released", "again.ckpt").code == 0
    before, after = (Transformer.from_checkpoint(path) for path in (trained, "again.ckpt"))
    tokens = torch.tensor([[0, 1, 1]])
    assert torch.equal(before(tokens), after(tokens))

    options = ("--config", "quick.yaml", *norm, "--ckpt_path")
    results = [sparselit("validate", *options, str(path)) for path in (trained, "again.ckpt")]
    assert results[0].code == results[1].code == 0
    assert results[0].out.splitlines()[-1] == results[1].out.splitlines()[-1]
    code, _, err = sparselit("fit", *options, "again.ckpt")
    assert code == 2
    assert "again.ckpt holds a model and no state of its training; fit cannot go on from there" in err


REFUSED = {
    "nothing there": (("nowhere", "model.ckpt"), "nowhere does not exist"),
    "folder to folder": (("released", "other"), "other is a folder; name a file"),
    "file to file": (("text", "text"), "text is a file; name a folder"),
    "would be replaced": (("released", "text"), "text exists; replace it with --overwrite"),
    "folder with files": (("text", "released"), "released exists; replace it with --overwrite"),
    "no checkpoint": (("text", "new"), "'text' cannot be read"),
    "one name": (("released",), "the following arguments are required: TARGET; see `sparselit convert --help`"),
    "no such folder": (("released", "text/model.ckpt"), "cannot write text/model.ckpt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
    sparselit: Command, folder: Path, case: str
) -> None:
    checkpoint(folder / "released")
    (folder / "other").mkdir()
    (folder / "text").write_text("no checkpoint")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    argv, message = REFUSED[case]
    code, out, err = sparselit("convert", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) <= 2
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_with_overwrite_the_target_is_replaced(sparselit: Command, folder: Path) -> None:
    checkpoint(folder / "released")
    (folder / "text").write_text("no checkpoint")
    assert sparselit("convert", "released", "text", "--overwrite").code == 0
    assert sparselit("convert", "text", "released", "--overwrite").code == 0
    assert Transformer.from_checkpoint(folder / "text").d_mlp == 7
