"""Whoever reads a file of a user's reads a plain one: no pipe is waited for, no device read without end."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sparselit.tasks import FileTask

from sparselit.circuits.files import read_circuit
from sparselit.cli.experiment import yaml_text
from sparselit.data.behaviour import prompt_record, read_examples
from sparselit.data.corpus.store import open_corpus
from sparselit.errors import SparselitError
from sparselit.interop.openai import read_config
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.plain_file import parse_json, read_bytes, read_json, read_text
from sparselit.runs.result import Result
from sparselit.runs.timing import read_timing
from tests.fuzz.running import limited


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


#: What may stand where a file is expected.
STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device without end": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a terabyte": _sparse,
    "nested lists": lambda path: path.write_text("[" * 100_000),
    "nested objects": lambda path: path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
    "a long number": lambda path: path.write_text("1" * 100_000),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
}


def _corpus(path: Path) -> Any:
    (path.parent / "corpus.json").symlink_to(path.name)
    return open_corpus(path.parent)


def _release(path: Path) -> Any:
    (path.parent / "beeg_config.json").symlink_to(path.name)
    return read_config(path.parent)


#: Everything that reads a file of text or JSON, and the checkpoint reader.
READERS: dict[str, Callable[[Path], object]] = {
    "circuit": read_circuit,
    "prompts": lambda path: read_examples(path, "ab", ["all"]),
    "result": Result.read,
    "configuration": yaml_text.read,
    "task": lambda path: FileTask(str(path)),
    "corpus": _corpus,
    "release": _release,
    "checkpoint": load_checkpoint,
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_of_text_is_refused_at_once(reader: str, strange: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    STRANGE[strange](path)
    with limited(10), pytest.raises(SparselitError) as refusal:
        READERS[reader](path)
    assert len(str(refusal.value).splitlines()) <= 2
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_only_shown_where_it_can_be_read_is_left_out(strange: str, tmp_path: Path) -> None:
    STRANGE[strange](tmp_path / "step=1.timing.json")
    with limited(10):
        assert read_timing(tmp_path / "step=1.json") is None


@pytest.mark.parametrize("strange", ["pipe", "device without end", "folder", "link to itself", "a terabyte"])
def test_prompts_that_are_no_plain_file_have_no_record(strange: str, tmp_path: Path) -> None:
    STRANGE[strange](tmp_path / "report.jsonl")
    with limited(10), pytest.raises(SparselitError, match="cannot read the prompts"):
        prompt_record(tmp_path / "report.jsonl", tmp_path)


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"a": "\xc3\xa9"}\r\n')
    assert read_bytes(path) == path.read_bytes()
    assert read_text(path) == '{"a": "é"}\r\n'
    assert read_json(path) == parse_json(read_text(path)) == {"a": "é"}
    with pytest.raises(OSError, match="larger than 0 MiB"):
        read_bytes(path, largest=5)


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"archive/data/{number}", bytes(2**24))
    with pytest.raises(SparselitError, match="cannot be read"):
        load_checkpoint(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(12)),
        "x: &x [*x]",
        "x: &x {y: *x}",
        "[" * 100 + "]" * 100,
        "a: &a [" + "1, " * 999 + "]\nb: [" + "*a, " * 200 + "]",
    ],
    ids=["aliases of aliases", "a list in itself", "a mapping in itself", "deep", "wide"],
)
def test_a_configuration_that_has_no_end_is_refused_at_once(text: str) -> None:
    with limited(60), pytest.raises(SparselitError, match=r"nested too deeply|too many values"):
        yaml_text.load(text, "mine.yaml")
