"""An edit of a record is named as an edit; resealed by a forger, it meets the recomputation of what verify checks."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits.circuit import FOR_THE_RECORD, VERSION, Circuit, seal_of
from sparselit.circuits.evidence.compare import false_claims, tolerance
from sparselit.circuits.files import read_circuit, write_circuit
from sparselit.circuits.verify import verify
from sparselit.errors import SparselitError
from sparselit.runs.machine import MadeOn
from tests.circuits import elsewhere
from tests.circuits.records import some_adversary, some_circuit, some_evidence
from tests.cli.test_show_verify import NAME, run, texts, wired_model, with_circuit

Steps = tuple[Any, ...]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    torch.set_flush_denormal(True)
    return with_circuit(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def path(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / NAME


def numbers(content: Any, at: Steps = ()) -> Iterator[tuple[Steps, int | float]]:
    """Every number of a record and the steps to it."""
    if isinstance(content, dict | list):
        for step, part in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers(part, (*at, step))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield at, content


def one_digit_off(value: float) -> Iterator[Any]:
    """The number with each of its digits changed in turn, where that is another number in double precision."""
    text = json.dumps(value)
    for i, digit in enumerate(text):
        if digit.isdigit() and "e" not in text[:i]:
            other = text[:i] + str((int(digit) + 1) % 10) + text[i + 1 :]
            valid = not other.lstrip("-").startswith("0") or other.lstrip("-").startswith("0.") or other == "0"
            if valid and json.loads(other) != value:
                yield json.loads(other)


def put(content: Any, at: Steps, value: Any) -> Any:
    """The content with another number there: the parts on the way are new, all others are shared."""
    if not at:
        return value
    changed = copy.copy(content)
    changed[at[0]] = put(content[at[0]], at[1:], value)
    return changed


def write(path: Path, content: Any, reseal: bool = False) -> None:
    if reseal and "seal" in content:
        content["seal"] = seal_of(content)
    path.write_text(json.dumps(content), encoding="utf-8")


#: What is recomputed, and so meets a forger: every figure below these.
RECOMPUTED = ("criterion", "size", "certificate", "evidence", "edges", "biases")


def as_path(at: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at)[1:]


def noticed(content: dict[str, Any], at: Steps, other: Any) -> bool:
    """Whether a changed number is refused on reading, or breaks the seal."""
    try:
        return Circuit.from_json(put(content, at, other)).seal == "broken"
    except SparselitError:
        return True


def trained() -> dict[str, Any]:
    """The record of a trained model's circuit, of today's version."""
    found = elsewhere.found()
    newer = some_evidence(adversary=some_adversary())  # what its version had not
    evidence = replace(found.evidence, other_ablations=newer.other_ablations, adversary=newer.adversary)
    return replace(found, version=VERSION, made_on=MadeOn.here(), evidence=evidence).as_json()


def test_a_changed_digit_of_any_number_of_a_trained_circuit_is_noticed() -> None:
    content, rng = json.loads(json.dumps(trained())), random.Random(0)
    assert Circuit.from_json(content).seal == "intact"
    found = list(numbers(content))
    assert len(found) > 600
    for at, value in found:
        assert noticed(content, at, rng.choice(list(one_digit_off(value)))), as_path(at)


@pytest.mark.slow
def test_every_changed_digit_of_a_trained_circuit_is_noticed() -> None:
    content = json.loads(json.dumps(trained()))
    edits = [(at, other) for at, value in numbers(content) for other in one_digit_off(value)]
    assert len(edits) > 3000
    missed = [(as_path(at), other) for at, other in edits if not noticed(content, at, other)]
    assert missed == []


def named_by_verify(path: Path, content: dict[str, Any], at: Steps, rng: random.Random) -> bool:
    write(path, put(content, at, rng.choice(list(one_digit_off(dict(numbers(content))[at])))))
    try:
        return verify(path)["false_claims"][:1] == ["seal"]
    except SparselitError:
        return True


@pytest.mark.parametrize("part", ["task", "criterion", "edges", "size", "certificate", "evidence", "search", "version"])
def test_verify_names_a_changed_digit_in_every_part(path: Path, part: str) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    rng = random.Random(part)
    assert named_by_verify(path, content, rng.choice([at for at, _ in numbers(content) if at[0] == part]), rng)


@pytest.mark.slow
def test_verify_names_a_changed_digit_of_every_number(path: Path) -> None:
    content, rng = json.loads(path.read_text(encoding="utf-8")), random.Random(0)
    missed = [as_path(at) for at, _ in numbers(content) if not named_by_verify(path, content, at, rng)]
    assert missed == []


def test_a_forger_meets_the_recomputed_figures_at_the_digits_that_are_written(path: Path) -> None:
    """With a seal made anew, what still passes lies within the tolerance of its figure."""
    content, true = json.loads(path.read_text(encoding="utf-8")), read_circuit(path)
    edits = passed = 0
    for at, value in numbers(content):
        if at[0] not in RECOMPUTED or at[-1] in ("at_most", "at_least"):
            continue
        for other in one_digit_off(value):
            edits += 1
            changed = put(content, at, other)
            changed["seal"] = seal_of(changed)
            try:
                forged = Circuit.from_json(changed)
            except SparselitError:
                continue  # refused on reading
            assert forged.seal == "intact"
            if at[0] in ("edges", "biases"):
                assert forged.weights != true.weights
            elif not list(false_claims(forged, true, True)):
                passed += 1
                assert tolerance(as_path(at), True).allows(other, value), as_path(at)
    assert edits > 500
    assert passed < edits / 5


def test_an_edit_is_named_as_one_by_verify_and_show(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content["search"]["evaluations"] += 1  # nothing can recompute that
    write(path, content)
    verdict = verify(path)
    assert verdict["false_claims"] == ["seal"]
    assert verdict["seal"] == "broken"
    assert not verdict["holds"]
    for command in (["verify"], ["show", "--no-picture"]):
        assert "BROKEN" in run(capsys, command[0], str(path), *command[1:])[1]


def test_the_seal_is_the_same_in_two_runs_and_lasts_through_reading(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "again" / NAME
    write_circuit(other, read_circuit(path), wired_model(), texts())
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("part", ["seal", "made_on", "for_the_record"])
def test_a_sealed_version_without_a_part_is_refused(path: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[part]
    write(path, content, reseal=True)
    code, _, err = run(capsys, "verify", str(path))
    assert code == 2
    assert part in err


def test_what_is_for_the_record_is_said_in_the_file_and_by_both_commands(path, capsys) -> None:
    assert json.loads(path.read_text(encoding="utf-8"))["for_the_record"] == list(FOR_THE_RECORD)
    _, out, _ = run(capsys, "verify", str(path))
    assert all(line.partition(":")[0] in out for line in FOR_THE_RECORD)
    assert run(capsys, "show", str(path), "--no-picture")[1].count("(for the record)") >= 2


def test_an_unfinished_circuit_is_told_as_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circuit = read_circuit(path)
    unfinished = replace(circuit.certificate, complete=False, removals=(), min_margin=0.0)
    write(path, replace(circuit, certificate=unfinished).as_json())
    verdict = verify(path)
    assert verdict["false_claims"] == []
    assert verdict["holds"]
    assert not verdict["minimal"]
    code, out, _ = run(capsys, "verify", str(path))
    assert code == 1
    assert "minimal      unknown, the circuit has no certificate" in out


def test_what_did_not_generalise_is_called_so(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    circuit = read_circuit(path)
    assert circuit.generalises
    failing = replace(some_circuit().criterion[0], value=0.2)
    assert not replace(circuit, criterion=(failing,)).generalises
    write(path, replace(circuit, criterion=(failing,)).as_json())
    out = run(capsys, "show", str(path), "--no-picture")[1]
    assert "did not generalise" in out
