"""``compile: true``: other kernels for training, and the same names, files, circuits and way back into a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import QUICK, Command

FIT = ("fit", "--config", "run.yaml")
#: The compiler without its code generation, which takes minutes: the very operations of the uncompiled model.
EAGER = ("--compile", "{backend: eager}")
CIRCUITS = """\
circuits:
  every_n_steps: 3
  begin: {density: 1.0}
  criterion: [{metric: kl, at_most: 0.003}]
  ablation: zero
  search: {class_path: GroupTesting}
"""
pytestmark = pytest.mark.filterwarnings("ignore")  # of the compiler about torch itself


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "run.yaml").write_text(QUICK.replace("n_heads: 2}", "n_heads: 2, init_std: 0.5, lr: 0.03}") + CIRCUITS)
    return folder


def state(run: str, step: int = 6) -> dict[str, torch.Tensor]:
    return load_checkpoint(f"runs/run/{run}/checkpoints/step={step}.ckpt")["state_dict"]


def check_names_and_circuits(tolerance: float) -> None:
    """Of version_1, which was compiled, against version_0."""
    plain, compiled = state("version_0"), state("version_1")
    assert list(plain) == list(compiled)
    assert not any("_orig_mod" in name for name in compiled)
    for name in plain:
        if tolerance and name.endswith("k.bias"):
            continue  # attention is the same with any: its gradient is rounding, which Adam makes steps of
        assert torch.allclose(plain[name], compiled[name], rtol=tolerance, atol=tolerance), name
        assert torch.equal(plain[name] == 0, compiled[name] == 0), name
    found = [sorted(Path(f"runs/run/{run}/circuits").glob("step=?.json")) for run in ("version_0", "version_1")]
    assert [path.name for path in found[0]] == [path.name for path in found[1]] != []
    for one, other in zip(*found, strict=True):
        if tolerance == 0:
            assert one.read_bytes() == other.read_bytes()
        edges = [[edge[:3] for edge in json.loads(path.read_text())["edges"]] for path in (one, other)]
        assert edges[0] == edges[1] != []


@pytest.mark.slow
def test_a_compiled_run_has_the_names_and_circuits_of_one_that_is_not(sparselit: Command, folder: Path) -> None:
    assert sparselit(*FIT).code == 0
    assert sparselit(*FIT, *EAGER).code == 0
    check_names_and_circuits(0)
    torch._dynamo.reset()
    assert sparselit(*FIT, *EAGER, "--ckpt_path", "runs/run/version_1/checkpoints/step=4.ckpt").code == 0
    assert all(torch.equal(tensor, state("version_1")[name]) for name, tensor in state("version_2").items())
    assert sparselit("test", "--ckpt_path", "runs/run/version_1").code == 0


def test_the_forward_of_training_went_through_the_compiler(sparselit: Command, folder: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    sparselit(*FIT, "--sparsity", "null", "--circuits", "null", "--trainer.max_steps", "1")
    assert not torch._dynamo.utils.counters["frames"]
    sparselit(*FIT, *EAGER, "--sparsity", "null", "--circuits", "null", "--trainer.max_steps", "1")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
    plain, compiled = state("version_0", 1), state("version_1", 1)
    assert list(plain) == list(compiled)
    assert all(torch.equal(plain[name], compiled[name]) for name in plain)


@pytest.mark.slow
def test_generated_code_trains_the_same_model_and_finds_the_same_circuits(sparselit: Command, folder: Path) -> None:
    assert sparselit(*FIT).code == 0
    assert sparselit(*FIT, "--compile", "true").code == 0
    check_names_and_circuits(1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compile", "{bakend: eager}"), "compile: no argument 'bakend'; did you mean 'backend'?"),
        (("--compile", "{backend: nothing}"), "compile: Invalid backend: 'nothing'"),
        (("--compile", "3"), "compile: expected true or false or"),
        (("--compile", "true", "--reproducible", "true"), "reproducible: true pins kernels that compile replaces"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(options, message, sparselit: Command, folder: Path) -> None:
    outcome = sparselit(*FIT, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("runs/run/version_0").exists()
