"""What a run leaves as data is read back as it was, and a wrong field is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from sparselit.errors import SparselitError
from sparselit.runs import result as module
from sparselit.runs.result import ENDED, Result, Steps, digest
from tests.runs import example

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "result_file.md"
SOME = [
    example.result(),
    example.result(circuits=None, density=None, checkpoint=None, seed=None, steps=Steps(None, 3), ended="running"),
    example.result(
        circuits=example.circuits(
            example.circuit(task="a", searched={"nonsense_target": None, "swapped_target": 50}, seconds=None),
            example.circuit(task="b", ablation={"kind": "zero", "distribution": None, "per": None, "norm": "frozen"}),
            overlap=0.25,
            reason="b: no circuit",
        ),
        problems=("the budget was missed",),
    ),
]


@pytest.mark.parametrize("some", SOME)
def test_a_result_is_read_back_as_it_was_written(some: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(some.text(), encoding="utf-8")
    assert Result.read(path) == some
    assert Result.read(path).text() == some.text()
    assert Result.from_json(some.as_json()) == some
    assert json.loads(some.text())["version"] == 1


def changed(place: str, value: Any, remove: bool = False) -> Any:
    """The content of a result with one field changed, at a place as in ``circuits.found[0].edges``."""
    content = json.loads(example.result().text())
    *path, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", place)]
    inner = content
    for part in path:
        inner = inner[part]
    if remove:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("seed", "zero", "the field 'seed' is missing or not a count"),
        ("seed", True, "the field 'seed' is missing or not a count"),
        ("name", None, "the field 'name' is missing or not a text"),
        ("steps.done", 3.5, "the field 'steps.done' is missing or not a count"),
        ("steps", [1, 2], "the field 'steps' is missing or not a dict"),
        ("accuracies[1].interval", [0.1], "the field 'accuracies[1].interval' is missing or not a list of 2"),
        ("accuracies", {}, "the field 'accuracies' is missing or not a list"),
        ("density.tensors[0].shape[1]", "20", "the field 'density.tensors[0].shape[1]' is missing or not a count"),
        ("circuits.found[0].complete", 1, "the field 'circuits.found[0].complete' is missing or not true or false"),
        (
            "circuits.found[0].criterion[1].value",
            "x",
            "'circuits.found[0].criterion[1].value' is missing or not a number",
        ),
        ("circuits.found[0].ablation.kind", 0, "the field 'circuits.found[0].ablation.kind' is missing or not a text"),
        ("circuits.found[0].ablation", [], "the field 'circuits.found[0].ablation' is missing or not a dict"),
        ("machine.cores", 2, "the field 'machine.cores' is unknown"),
        ("ended", "bored", "ended must be one of max_steps, max_epochs, max_time"),
    ],
)
def test_a_wrong_field_is_named_by_its_place(place: str, value: Any, message: str) -> None:
    with pytest.raises(SparselitError) as error:
        Result.from_json(changed(place, value))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["digest", "machine.capability", "circuits.found[0].kl", "accuracies[0].n"])
def test_a_missing_field_is_named_by_its_place(place: str) -> None:
    with pytest.raises(SparselitError, match=rf"^the field '{re.escape(place)}' is missing"):
        Result.from_json(changed(place, None, remove=True))


def test_another_format_or_version_or_no_json_is_refused_in_one_line_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(SparselitError, match=r"result\.json cannot be read: No such file"):
        Result.read(path)
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "this is not a result: its format is not 'sparselit-result'"),
        (json.dumps(changed("format", "other")), "this is not a result"),
        (json.dumps(changed("version", 2)), "version is 2; this sparselit reads 1"),
        (json.dumps(changed("version", True)), "version is True; this sparselit reads 1"),
    ):
        path.write_text(content)
        with pytest.raises(SparselitError, match=rf"{path}.*{message}"):
            Result.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SparselitError, match="is not JSON"):
        Result.read(path)


def test_the_digest_is_of_what_is_computed_and_not_of_where_files_lie() -> None:
    config = {"seed_everything": 0, "data": {"n": [1, 2]}, "trainer": {"default_root_dir": "a", "max_steps": 3}}
    same = {"trainer": {"max_steps": 3, "default_root_dir": "b"}, "ckpt_path": "last", "data": {"n": (1, 2)}}
    assert digest(config) == digest({**same, "seed_everything": 0})
    assert digest(config) != digest({**same, "seed_everything": 1})
    assert digest(config) != digest({**config, "data": {"n": [2, 1]}})
    assert re.fullmatch(r"[0-9a-f]{64}", digest(config))


def test_the_last_circuit_of_each_task_counts() -> None:
    found = [example.circuit(task=task, step=step) for step in (50, 100) for task in ("b", "a")]
    latest = example.circuits(*found, example.circuit(task="b", step=150)).latest
    assert [(circuit.task, circuit.step) for circuit in latest] == [("b", 150), ("a", 100)]


def test_reading_results_needs_no_torch() -> None:
    code = "import sys, sparselit.runs.result; assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_explains_every_field() -> None:
    text = PAGE.read_text(encoding="utf-8")
    described = set(re.findall(r"`(\w+)`", text))
    kinds = [kind for kind in vars(module).values() if is_dataclass(kind)]
    assert len(kinds) > 8
    for kind in kinds:
        assert {field.name for field in fields(kind)} <= described, kind
    assert set(ENDED) <= described
