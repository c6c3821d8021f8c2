"""A string of somebody else's file is shown, never obeyed: no command sends a control character to the terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselit.report.facts import visible

from .test_show_verify import NAME, run, with_circuit

EVIL = "\x1b]0;owned\x07\x1b[2K\rverdict: holds \u202e\u0085\ud800"
COMMANDS = {
    "show": ("show", NAME, "--no-picture"),
    "view": ("view", NAME),
    "verify": ("verify", NAME),
    "verify --json": ("verify", NAME, "--json"),
    "story": ("story", NAME),
    "diff": ("diff", NAME, "good.json"),
    "union": ("union", NAME, "good.json"),
    "hypotheses": ("hypotheses", NAME),
    "stability": ("stability", NAME, "--runs", "1"),
    "intervene": ("intervene", NAME, "--ablate", "token[0]"),
    "audit": ("audit", NAME, "--n", "1"),
    "history": ("history", ".", "--no-picture"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    folder = tmp_path_factory.mktemp("found")
    with_circuit(folder)
    shutil.copy(folder / NAME, folder / "good.json")
    shutil.copy((folder / NAME).with_suffix(".safetensors"), folder / "good.safetensors")
    return folder


@pytest.fixture
def folder(found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def strings(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the strings are; of a long list the first entry only."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from strings(value, (*way, key))
    elif isinstance(content, list) and content:
        yield from strings(content[0], (*way, 0))
    elif isinstance(content, str):
        yield way


def changed(content: Any, way: tuple[Any, ...], value: str) -> Any:
    """A copy with one string replaced."""
    if not way:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[way[0]] = changed(content[way[0]], way[1:], value)
    return copy


def assert_only_text(text: str) -> None:
    hidden = {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not hidden, f"{hidden} in {text!r}"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_string_of_a_circuit_reaches_the_terminal_as_more_than_text(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((folder / NAME).read_text(encoding="utf-8"))
    ways = list(strings(whole))
    assert len(ways) > 15
    for way in ways if command == "show" else ways[::4]:
        (folder / NAME).write_text(json.dumps(changed(whole, way, EVIL)), encoding="utf-8")
        code, out, err = run(capsys, *COMMANDS[command])
        assert_only_text(out + err)
        assert code in (0, 1, 2), (way, err)
        assert code != 2 or len(err.splitlines()) <= 2, (way, err)


def test_a_file_name_is_text_as_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2Kb.json"
    shutil.copy(folder / NAME, folder / name)
    for argv in (("show", name, "--no-picture"), ("verify", name), ("show", "missing\r.json"), ("density", name)):
        _, out, err = run(capsys, *argv)
        assert_only_text(out + err)


@given(st.text())
def test_what_is_visible_is_text_and_plain_text_stays(text: str) -> None:
    assert_only_text(visible(text))
    assert visible(visible(text)) == visible(text)
    plain = "".join(c for c in text if unicodedata.category(c)[0] in "LNPSM" or c in " \n\t")
    assert visible(plain) == plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_output_that_is_not_utf_8_shows_escapes(encoding: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    script = Path(sys.executable).with_name("sparselit")
    for argv in (["show", NAME, "--no-picture"], ["--help"], ["tasks"]):
        done = subprocess.run([script, *argv], cwd=folder, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode(encoding)


@pytest.mark.skipif(os.name != "posix", reason="closes a stream as a POSIX shell does")
def test_closed_outputs_are_no_error(folder: Path) -> None:
    script = Path(sys.executable).with_name("sparselit")
    for closing in (">&-", "2>&-", ">&- 2>&-", "| true"):
        done = subprocess.run(
            f"{script} show {NAME} --no-picture {closing}", shell=True, cwd=folder, capture_output=True
        )
        assert done.returncode == 0, done
        assert b"Traceback" not in done.stderr
