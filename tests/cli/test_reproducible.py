"""``reproducible: true``: other instruction sets and threads give the same weights; the result names them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparselit.circuits.circuit import model_hash
from sparselit.cli.experiment.arguments import prepare
from sparselit.runs.checkpoint_file import load_checkpoint
from tests.cli.conftest import QUICK, Command

#: By name: variables of the environment, and options.
RUNS = {
    "avx2": ({"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}, ("--reproducible", "true")),
    "native": ({"OMP_NUM_THREADS": "2"}, ("--reproducible", "true")),
    "not pinned": ({"ATEN_CPU_CAPABILITY": "avx2"}, ("--threads", "2")),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """By name: what the run's result says of the machine, and the hash of its weights."""
    (folder := tmp_path_factory.mktemp("reproducible")).joinpath("quick.yaml").write_text(QUICK, encoding="utf-8")
    plain = {name: value for name, value in os.environ.items() if name not in ("ATEN_CPU_CAPABILITY", "MKL_CBWR")}
    started = {}
    for name, (variables, options) in RUNS.items():
        command = [sys.executable, "-c", "from sparselit.cli import main; main()", "fit", "--config", "quick.yaml"]
        command += [*options, "--trainer.default_root_dir", name]
        started[name] = subprocess.Popen(
            command, cwd=folder, env=plain | variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    found = {}
    for name, process in started.items():
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "had been loaded" not in err
        (result,) = folder.glob(f"{name}/runs/*/*/result.json")
        (last,) = result.parent.glob("checkpoints/step=6.ckpt")
        machine = json.loads(result.read_text(encoding="utf-8"))["machine"]
        found[name] = machine, model_hash(load_checkpoint(last)["state_dict"])
    return found


@pytest.mark.slow
def test_other_instruction_sets_and_threads_give_the_same_weights(runs: dict[str, tuple[dict[str, Any], str]]) -> None:
    assert runs["avx2"][1] == runs["native"][1]


@pytest.mark.slow
def test_the_result_says_what_computed_it(runs: dict[str, tuple[dict[str, Any], str]]) -> None:
    said = {name: (machine["capability"], machine["threads"]) for name, (machine, _) in runs.items()}
    assert said["avx2"] == said["native"] == ("DEFAULT", 1)
    assert said["not pinned"] in (("AVX2", 2), ("DEFAULT", 2))  # the second where the processor has no AVX2


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((), False),
        (("--reproducible", "true"), True),
        (("--reproducible=true",), True),
        (("--reproducible", "false"), False),
        (("--config", "pinned.yaml"), True),
        (("--config", "pinned.yaml", "--reproducible", "false"), False),
    ],
)
def test_kernels_are_pinned_where_the_key_stands(folder: Path, options: tuple[str, ...], asked: bool) -> None:
    (folder / "pinned.yaml").write_text(QUICK + "reproducible: true\n", encoding="utf-8")
    assert prepare(["fit", "--config", "quick.yaml", *options]).reproducible is asked


def test_what_came_too_late_to_be_pinned_is_told(sparselit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    import torch

    try:
        outcome = sparselit("fit", "--config", "quick.yaml", "--reproducible", "true")
    finally:
        torch.use_deterministic_algorithms(False)
    assert outcome.code == 0
    assert "torch had been loaded before" in outcome.err
