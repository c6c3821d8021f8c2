"""A circuit verifies under other kernels than those it was found with: other instruction sets, threads, precisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits.criterion import measure
from sparselit.circuits.evidence.compare import differences
from sparselit.circuits.evidence.scores import rounded, score
from sparselit.circuits.files import read_model
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.verify import verify
from sparselit.runs.json_record import write
from tests.circuits import elsewhere

MODES = ("1 thread", "2 threads", "deterministic", "float64")
#: Kernels without vector instructions are slow: every mode of each set is a slow test.
GRID = {"default": MODES[:1]}
#: Verifies one circuit in each mode, in a process whose kernels the environment names.
PROGRAM = """
import importlib, json, sys, torch
module = importlib.import_module("sparselit.circuits.verify")
torch.set_flush_denormal(True)
verdicts = {"capability": torch.backends.cpu.get_cpu_capability()}
read = module.read_model
for mode in sys.argv[2:]:
    torch.set_num_threads(2 if mode == "2 threads" else 1)
    torch.use_deterministic_algorithms(mode == "deterministic")
    module.read_model = (lambda *given: read(*given).double()) if mode == "float64" else read
    verdicts[mode] = module.verify(sys.argv[1])
print(json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    torch.set_flush_denormal(True)
    return elsewhere.small(tmp_path_factory.mktemp("small"))


def verdicts(path: Path, capability: str, modes: Sequence[str]) -> dict[str, Any]:
    """By mode, what verify says in a process with a capability."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", PROGRAM, str(path), *modes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if found["capability"].lower() != capability:
        pytest.skip(f"this processor computes with {found['capability']}")
    return found


def check(found: dict[str, Any], modes: Sequence[str]) -> None:
    for mode in modes:
        verdict = found[mode]
        changed = ["model.hash"] if mode == "float64" else []  # the weights are others, to the byte
        assert verdict["false_claims"] == changed, mode
        assert verdict["holds"] == (not changed), mode
        assert verdict["minimal"], mode
        assert verdict["same_machine"] == (found["capability"] == torch.backends.cpu.get_cpu_capability())


@pytest.mark.parametrize(("capability", "modes"), GRID.items(), ids=GRID)
def test_a_circuit_verifies_whatever_kernels_compute_it(small: Path, capability: str, modes: Sequence[str]) -> None:
    check(verdicts(small, capability, modes), modes)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_a_circuit_verifies_in_every_mode_of_every_instruction_set(small: Path, capability: str) -> None:
    check(verdicts(small, capability, MODES), MODES)


def test_a_circuit_of_another_machine_agrees_where_it_is_cheap_to_see(tmp_path: Path) -> None:
    """Scores and certificate on the discovery split; the whole of it is the slow test below."""
    circuit = elsewhere.found()
    model = read_model(elsewhere.with_weights(tmp_path) / elsewhere.NAME, circuit)
    examples = elsewhere.behaviour(selection=1, report=1).splits["discovery"]
    engine = NaiveEngine.of(model, circuit.ablation, {"discovery": examples})
    kept = engine.edges.find(circuit.places)
    reference = model(examples.tokens, examples.length - 1).detach()
    again = write(score(engine.logits(kept, examples), examples, reference), 2)
    claimed = write(circuit.evidence.sufficiency["discovery"], 2)
    assert list(differences("evidence.sufficiency.discovery", claimed, again, False)) == []
    number = {place: i for i, place in enumerate(circuit.places)}
    for place, removal in list(zip(circuit.places, circuit.certificate.removals, strict=True))[::6]:
        without = engine.edges.find([other for other in number if other != place])
        values = rounded(measure(engine.logits(without, examples), examples, reference))
        found = {name: values[name] for name in removal.values}
        assert list(differences("certificate.removals", dict(removal.values), found, False)) == []
    wrong = {**claimed, "kl": claimed["kl"] * 1.001}  # a tolerance, and no more than that
    assert list(differences("evidence.sufficiency.discovery", wrong, again, False)) == [
        "evidence.sufficiency.discovery.kl"
    ]


@pytest.mark.slow
def test_a_circuit_of_another_machine_verifies(tmp_path: Path) -> None:
    path = elsewhere.whole(tmp_path)
    verdict = verify(path)
    assert verdict["false_claims"] == []
    assert verdict["holds"]
    assert verdict["minimal"]
    assert not verdict["same_machine"]
    assert verdict["seal"] == "none"
