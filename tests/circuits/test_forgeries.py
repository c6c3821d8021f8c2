"""What a forger can change in a record: each edit is named by its seal, and each resealed one by what is recomputed.

What neither names is marked "for the record", or is a weaker claim that is true.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits.circuit import FOR_THE_RECORD, seal_of
from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import discover
from sparselit.circuits.files import write_circuit
from sparselit.circuits.verify import verify
from sparselit.errors import SparselitError
from tests.cli.test_show_verify import NAME, as_version_1, texts, wired_model

Content = dict[str, Any]
Change = Callable[[Content], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    """A circuit with searched nulls."""
    torch.set_flush_denormal(True)
    folder = tmp_path_factory.mktemp("forged")
    model, behaviour = wired_model(), texts()
    criterion = [Bound("task_loss", at_most=0.15), Bound("accuracy", at_least=0.99)]
    circuit = discover(model, behaviour, criterion, ablation="zero", evidence="full")
    write_circuit(folder / NAME, circuit, model, behaviour)
    return folder


@pytest.fixture
def path(folder: Path, tmp_path: Path) -> Path:
    torch.set_flush_denormal(True)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / NAME


def nulls(content: Content) -> Any:
    return content["evidence"]["nulls"]["searched"]


def emptied(content: Content) -> None:
    content["evidence"]["sufficiency"] = {}
    content["evidence"]["held_out"]["strata"] = {}


def as_version_2(content: Content) -> None:
    for part in ("made_on", "for_the_record", "seal"):
        del content[part]
    content["version"] = 2


#: What the files show to be false, with the path that verify names; also with a seal made anew.
FALSE: dict[str, tuple[Change, str]] = {
    "a searched null left out": (lambda c: nulls(c).pop("swapped_target"), "evidence.nulls.searched.swapped_target"),
    "a searched null that found something": (
        lambda c: nulls(c)["nonsense_target"].update(edges=400),
        "evidence.nulls.searched.nonsense_target.edges",
    ),
    "looser bounds of a searched null": (
        lambda c: nulls(c)["nonsense_target"]["bounds"][0].update(at_most=0.5),
        "evidence.nulls.searched.nonsense_target.bounds[0].at_most",
    ),
    "more prompts of a searched null": (
        lambda c: nulls(c)["untrained_model"].update(n=1000),
        "evidence.nulls.searched.untrained_model.n",
    ),
    "a looser bound of the certificate": (
        lambda c: c["certificate"]["criterion"][0].update(at_most=0.5),
        "certificate.criterion",
    ),
    "evidence emptied": (emptied, "evidence.sufficiency.discovery"),
    "a flag left out": (lambda c: c["evidence"].update(flags=["attention"]), "evidence.flags"),
    "a finished certificate without rows": (lambda c: c["certificate"].update(removals=[]), "certificate.removals"),
    "more prompts": (lambda c: c["evidence"]["held_out"].update(n=1000), "evidence.held_out.n"),
    "another initialisation": (lambda c: c["model"]["config"].update(init_std=1.0), "evidence.nulls.untrained_model"),
}
#: What nothing in the files shows to be false: the mark that says so, or none for a weaker claim that is true.
UNCHECKED: dict[str, tuple[Change, str | None]] = {
    "another task": (lambda c: c["task"].update(class_path="sparselit.tasks.Parity"), "task.class_path"),
    "another seed of the task": (lambda c: c["task"]["init_args"].update(seed=1), "task.init_args"),
    "a search of another name": (lambda c: c["search"].update(class_path="sparselit.circuits.search.Sweep"), "search"),
    "another seed of the search": (lambda c: c["search"]["init_args"].update(seed=1), "search"),
    "a cheaper search": (lambda c: c["search"].update(evaluations=1, forwards=1), "search"),
    "another processor": (lambda c: c["made_on"].update(processor="another"), "made_on"),
    "a null that reached less": (
        lambda c: nulls(c)["nonsense_target"].update(task_loss=9.0),
        "evidence.nulls.searched: that a search was run, and found nothing smaller",
    ),
    "no searched nulls": (lambda c: c["evidence"]["nulls"].update(searched=None), None),
    "a looser stated bound": (lambda c: c["criterion"][0].update(at_most=0.16), None),
}
ALL: dict[str, Change] = {name: row[0] for name, row in {**FALSE, **UNCHECKED}.items()}


def forge(path: Path, change: Change, reseal: bool = False) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    before = json.dumps(content)
    change(content)
    assert json.dumps(content) != before
    if reseal:
        content["seal"] = seal_of(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("change", ALL.values(), ids=ALL)
def test_an_edit_is_named_as_one(path: Path, change: Change) -> None:
    forge(path, change)
    verdict = verify(path)
    assert verdict["false_claims"][0] == "seal"
    assert not verdict["holds"]


@pytest.mark.parametrize(("change", "claim"), FALSE.values(), ids=FALSE)
def test_with_a_seal_made_anew_what_is_recomputed_names_it(path: Path, change: Change, claim: str) -> None:
    forge(path, change, reseal=True)
    verdict = verify(path)
    assert verdict["seal"] == "intact"
    assert any(name.startswith(claim) for name in verdict["false_claims"]), verdict["false_claims"]
    assert not verdict["holds"]


@pytest.mark.parametrize(("change", "mark"), UNCHECKED.values(), ids=UNCHECKED)
def test_what_nothing_can_check_is_marked_as_for_the_record(path: Path, change: Change, mark: str | None) -> None:
    forge(path, change, reseal=True)
    assert verify(path)["false_claims"] == []
    assert mark is None or mark in FOR_THE_RECORD


@pytest.mark.parametrize("older", [as_version_1, as_version_2])
def test_an_older_version_has_no_seal_and_its_emptied_evidence_is_false(path: Path, older: Change) -> None:
    forge(path, older)
    verdict = verify(path)
    assert (verdict["seal"], verdict["false_claims"]) == ("none", [])
    forge(path, emptied)
    assert "evidence.sufficiency.discovery" in verify(path)["false_claims"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_sealed_record_that_calls_itself_older_is_refused(path: Path, version: int) -> None:
    forge(path, lambda content: content.update(version=version))
    with pytest.raises(SparselitError, match="for_the_record"):
        verify(path)


@pytest.mark.parametrize("split", ["discovery", "selection", "report"])
def test_a_split_with_repeated_prompts_is_refused(path: Path, split: str) -> None:
    file = path.parent / "prompts" / f"{split}.jsonl"
    text = "".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:20]) * 50
    file.write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    forge(path, lambda content: content["task"]["splits"][split].update(n=1000, sha256=digest), reseal=True)
    with pytest.raises(SparselitError, match=f"of the 1,000 prompts of the {split} split only 20 are different"):
        verify(path)
