"""Every precision of Lightning's trains, searches, verifies and says itself, or is refused before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .conftest import Command

CONFIG = """\
seed_everything: 0
data: {class_path: Parity, init_args: {batch_size: 16, pool: 500, report: 50, selection: 50, discovery: 50}}
model: {n_layers: 1, d_model: 6, n_heads: 1, lr: 0.003, init_std: 0.7, eps: 1.0e-4}
sparsity: {class_path: AnnealedSparsity, init_args: {density: {to: 0.25, end: 0.5}}}
circuits:
  {every_n_steps: 1000, search: GroupTesting, ablation: zero, criterion: [{metric: kl, at_most: 0.05}]}
trainer: {max_steps: 6, accelerator: cpu, enable_progress_bar: false, val_check_interval: 6}
"""
#: In which precision circuits are sought and their weights written.
SOUGHT = {
    "64-true": "float64",
    "bf16-true": "float32",
    "16-true": "float32",
    "bf16-mixed": "float32",
}
RUN = Path("runs/run/version_0")


@pytest.mark.parametrize("precision", SOUGHT)
def test_a_precision_trains_searches_verifies_and_says_itself(precision: str, sparselit: Command, folder: Path) -> None:
    (folder / "run.yaml").write_text(CONFIG)
    code, out, err = sparselit("fit", "--config", "run.yaml", "--trainer.precision", precision)
    assert code == 0, err
    found: dict[str, Any] = json.loads((RUN / "result.json").read_text())
    assert found["machine"]["precision"] == precision
    assert f", {precision}; torch" in " ".join(out.split())
    assert found["problems"] == []
    (circuit,) = found["circuits"]["found"]
    assert circuit["edges"] > 0
    own, again = RUN / "circuits/step=6.json", folder / "again/step=6.json"
    weights = load_file(own.with_suffix(".safetensors"))
    assert {str(tensor.dtype) for tensor in weights.values()} == {f"torch.{SOUGHT[precision]}"}
    verdict = json.loads(sparselit("verify", str(own), "--json").out)
    assert verdict["false_claims"] == []
    assert verdict["minimal"]
    checkpoint = str(RUN / "checkpoints/step=6.ckpt")
    code, _, err = sparselit("discover", "--ckpt_path", checkpoint, "--output", str(again))
    assert code in (0, 4), err
    assert again.read_bytes() == own.read_bytes()
    assert again.with_suffix(".safetensors").read_bytes() == own.with_suffix(".safetensors").read_bytes()
    for command in ("test", "predict"):
        code, _, err = sparselit(command, "--ckpt_path", checkpoint)
        assert code == 0, err


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")
@pytest.mark.parametrize(("written", "precision"), [("32", "32-true"), ("64", "64-true"), ("16-mixed", "bf16-mixed")])
def test_the_result_names_the_precision_that_lightning_takes(written, precision, sparselit, folder) -> None:
    code, _, err = sparselit("fit", "--config", "quick.yaml", "--trainer.precision", written)
    assert code == 0, err
    assert json.loads((folder / "runs/quick/version_0/result.json").read_text())["machine"]["precision"] == precision


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--trainer.precision", "16-true"],
            ["eps is 1e-08", "0 in half precision", "(model.eps) to 1e-4", "bf16-true"],
        ),
        (["--trainer.precision", "transformer-engine"], ["transformer-engine", "bf16-mixed"]),
        (["--trainer.precision", "transformer-engine-float16"], ["transformer-engine-float16", "bf16-mixed"]),
        (["--trainer.precision", "8-true"], ["8-true"]),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(options, words, sparselit, folder) -> None:
    code, _, err = sparselit("fit", "--config", "quick.yaml", *options)
    assert code == 2
    assert all(word in err for word in words), err
    assert len(err.splitlines()) <= 2, err
    assert not (folder / "runs/quick/version_0").exists()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_counts_and_losses_of_many_prompts_are_not_rounded_to_half_precision(precision, sparselit, folder) -> None:
    more = [
        "--data.report",
        "3001",
        "--data.length",
        "14",
        "--data.pool",
        "9000",
        "--model.eps",
        "1e-4",
        "--trainer.max_steps",
        "2",
    ]
    code, _, err = sparselit("fit", "--config", "quick.yaml", "--trainer.precision", precision, *more)
    assert code == 0, err
    found = json.loads((folder / "runs/quick/version_0/result.json").read_text())
    report = next(row for row in found["accuracies"] if row["split"] == "report")
    assert report["n"] == 3001
    loss = next(row["nats_per_token"] for row in found["losses"] if row["split"] == "report")
    assert float(torch.tensor(loss).to(torch.bfloat16)) != loss
