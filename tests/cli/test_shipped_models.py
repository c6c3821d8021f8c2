"""Commands on the trained models that come with the library, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparselit.circuits.files import read_circuit
from sparselit.runs.shipped import card

from .conftest import Command

pytest.importorskip("tokenizers")


def test_a_prompt_is_answered_by_name(sparselit: Command) -> None:
    outcome = sparselit("predict", "--ckpt_path", "python_base", "--prompt", "for i in range(len(x")
    assert outcome.code == 0, outcome.err
    assert "→ ')'" in outcome.out


def test_its_density_by_name(sparselit: Command) -> None:
    outcome = sparselit("density", "python_base", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["total"]["density"] < 0.06


def test_a_run_begins_with_its_weights_by_name(sparselit: Command, folder: Path) -> None:
    shape = ["--model.d_model", "256", "--model.n_heads", "4", "--model.n_layers", "1", "--trainer.max_steps", "1"]
    outcome = sparselit("fit", "--config", "quick.yaml", "--init_from", "python_base", "--allow_dense", "true", *shape)
    assert outcome.code in (0, 3), outcome.err
    assert "weights of runs/python_base" in outcome.err
    assert "init_from: python_base" in next(folder.glob("runs/quick/*/config.yaml")).read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["predict", "--ckpt_path", "python_bas", "--prompt", "x"], "did you mean 'python_base'?"),
        pytest.param(["predict", "--ckpt_path", "python_base"], "give --prompt TEXT", marks=pytest.mark.slow),
        (["models", "python_bas"], "did you mean 'python_base'?"),
        (["discover", "--ckpt_path", "python_base", "--circuits.task", "with_was"], "did you mean 'with_as'?"),
        (["fit", "--ckpt_path", "python_base", "--trainer.max_steps", "9"], "no state of its training"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(argv: list[str], said: str, sparselit: Command) -> None:
    outcome = sparselit(*argv)
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) <= 2


@pytest.mark.slow  # minutes
def test_a_circuit_is_found_by_name_and_verified(sparselit: Command, folder: Path) -> None:
    outcome = sparselit("discover", "--ckpt_path", "python_base", "--circuits.task", "while_return_true")
    assert outcome.code == 0, outcome.err
    (path,) = folder.rglob("circuits/while_return_true/step=*.json")
    assert read_circuit(path).task.corpus == card("python_base")["corpus_hash"]
    assert sparselit("verify", str(path)).code == 0
