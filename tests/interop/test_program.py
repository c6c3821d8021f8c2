"""The program of a circuit gives its logits, for all that a program can be written of, and nothing else is tried."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparselit.circuits import Ablation, Bound, discover, load, write_circuit
from sparselit.circuits.search import GroupTesting
from sparselit.errors import SparselitError
from sparselit.interop.export import export
from tests.circuits.models import randomised, some_behaviour

CONFIGS: list[dict[str, Any]] = [
    {},
    {"norm": "layer", "sink": True},
    {"norm": "none", "positions": "none", "activation": "relu"},
    {"bigram": True, "sink": True, "bias": False},
    {"tied": True, "n_layers": 2, "activation": "gelu_new", "unembed_bias": False},
    {"n_layers": 0, "norm": "layer"},
]
#: Runs a program where neither library can be imported.
ALONE = """
import runpy, sys
sys.modules["torch"] = sys.modules["sparselit"] = None
path = sys.argv.pop(1)
runpy.run_path(path, run_name="__main__")
"""


def found(folder: Path, config: dict[str, Any], ablation: Any, loose: float = 0.3) -> Path:
    model = randomised(**config)
    behaviour = some_behaviour(model)
    bounds = [Bound("kl", at_most=loose)]
    circuit = discover(model, behaviour, bounds, ablation, search=GroupTesting("magnitude"), margin=0.0)
    path = folder / "step=7.json"
    write_circuit(path, circuit, model, behaviour)
    return path


@pytest.mark.parametrize("ablation", ["zero", "mean"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_its_logits_are_those_of_the_circuit(config: dict[str, Any], ablation: str, tmp_path: Path) -> None:
    circuit = load(found(tmp_path, config, ablation))
    logits = runpy.run_path(str(export(circuit.path, "python")))["logits"]
    for split in ("report", "discovery"):
        examples = circuit.behaviour.splits[split]
        wanted = circuit.naive.logits(examples).numpy()
        rows = zip(examples.tokens.tolist(), examples.length.tolist(), strict=True)
        got = np.stack([logits(tokens[:length])[-1] for tokens, length in rows])
        assert np.abs(got - wanted).max() < 1e-5


def test_every_position_is_computed_and_the_file_runs_without_sparselit(tmp_path: Path) -> None:
    circuit = load(found(tmp_path, {}, "zero", loose=0.01))
    path = export(circuit.path, "python")
    tokens = torch.tensor([[0, 1, 2, 1]])
    wanted = circuit.run(tokens)[0].numpy()
    assert np.abs(runpy.run_path(str(path))["logits"](tokens[0].tolist()) - wanted).max() < 1e-5
    done = subprocess.run([sys.executable, "-c", ALONE, str(path), "abcb"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "abcde"[int(wanted[-1].argmax())]


@pytest.mark.parametrize(
    ("config", "ablation", "said"),
    [
        ({}, "resample", "corrupted prompt"),
        ({}, Ablation("mean", per="token"), "for each token"),
        ({}, Ablation("zero", norm="frozen"), "frozen"),
        ({"activation_density": 0.5}, "zero", "AbsTopK"),
        ({"positions": "sinusoidal"}, "zero", "positions sinusoidal"),
        ({"residual_activation": "relu"}, "zero", "residual_activation relu"),
    ],
    ids=str,
)
def test_what_no_program_can_compute_is_refused_by_name(
    config: dict[str, Any], ablation: Any, said: str, tmp_path: Path
) -> None:
    path = found(tmp_path, config, ablation, loose=5.0)
    with pytest.raises(SparselitError, match=said):
        export(path, "python")
