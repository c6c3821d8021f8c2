"""``sparselit audit`` and ``verify`` of what it wrote, as a user runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from sparselit.cli import main

from .test_show_verify import NAME, with_circuit
from .test_use_circuits import Outcome, refused, sparselit


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    return with_circuit(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def folder(found: Path, tmp_path: Path) -> Path:
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_prompt_is_accounted_for_in_three_files_and_recomputed(folder: Path) -> None:
    done = sparselit(folder, "audit", NAME, "--prompt", "'ab $", "-o", "one.json")
    assert done.code == 0, done.err
    assert 'explained by Quotes: answers "\'"' in done.out
    content = json.loads((folder / "one.json").read_text())
    jsonschema.validate(content, json.loads(sparselit(folder, "audit", "--schema").out))
    assert (folder / "one.md").read_text().startswith("# Decision: `'ab $` → `'`")
    assert "<script" not in (folder / "one.html").read_text()
    first = (folder / "one.json").read_bytes()
    assert sparselit(folder, "verify", "one.json").code == 0
    content["decisions"][0]["accounts"][0]["kl"] += 1
    (folder / "one.json").write_text(json.dumps(content))
    wrong = sparselit(folder, "verify", "one.json")
    assert wrong.code == 1
    assert "decisions[0].accounts[0].kl" in wrong.out
    sparselit(folder, "audit", NAME, "--prompt", "'ab $", "-o", "one.json")
    assert (folder / "one.json").read_bytes() == first


def test_many_prompts_give_a_document_under_the_headings_of_a_review(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"prompt": "\'ab"}\n{"prompt": ["\\"", "b", "$"]}\n')
    done = sparselit(folder, "audit", NAME, "--prompt", "p.jsonl")
    assert done.code == 0, done.err
    text = (folder / "step=7.audit.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:4] == ["## System and purpose", "## Data", "## Training", "## Performance by kind of prompt"]
    assert "claims no compliance" in text
    assert "95 % interval" in done.out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("audit",), ("circuits",)),
        (
            (
                "audit",
                NAME,
                "--prompt",
                "xyz",
            ),
            (
                "'x'",
                "no token",
            ),
        ),
        (
            (
                "audit",
                NAME,
                "--prompt",
                "none.txt",
            ),
            (
                "none.txt",
                "No such file",
            ),
        ),
        (
            (
                "audit",
                NAME,
                "-o",
                "page.html",
            ),
            (".json",),
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    refused(Outcome(int(stop.value.code or 0), *capsys.readouterr()), *expected)
