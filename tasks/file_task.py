"""A task from a file: no Python needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError, check_range
from sparselit.runs.plain_file import parse_json, read_text

_REQUIRED = ("prompt", "answer", "wrong")


class FileTask(Task):
    """Examples from JSON lines: ``{"prompt": "2+3=", "answer": "5", "wrong": "6", "corrupted": "2+4="}``.

    ``corrupted``, the corrupted prompt, and ``stratum``, the kind of prompt, may be left out. The prompts are
    trained on or held out by ``train_share``.

    Args:
        path: the file, UTF-8.
        vocabulary: the words that are one token each; null for the characters of the file, and the answers that are
            longer than one.
        train_share: share of the prompts that is trained on, in (0, 1).
        kwargs: arguments of every task.

    Raises:
        SparselitError: the file cannot be read, or a line is no example; the message names the line.
    """

    def __init__(
        self, path: str, vocabulary: Sequence[str] | None = None, train_share: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_range("data.train_share", train_share, 0, 1, above=True, below=True)
        self.train_share, self.lines = train_share, _read(Path(path))
        found = list(self.lines.values())
        answers = {word for example in found for word in (example.answer, example.wrong)}
        characters = {character for example in found for character in example.prompt + (example.corrupted or "")}
        self.vocabulary = list(vocabulary) if vocabulary is not None else sorted(characters | answers)
        self.strata = tuple(dict.fromkeys(example.stratum for example in found))
        self.max_length = max(len(self.tokenizer.words(example.prompt)) for example in found)
        self._family: dict[str, str] = {}
        known: dict[str, tuple[str, str]] = {}
        for where, example in self.lines.items():
            self._contract.check(where, example)
            answer, before = known.setdefault(example.prompt, (example.answer, where))
            if answer != example.answer:
                raise SparselitError(
                    f"{where}: the answer to {example.prompt!r} is {example.answer!r}, and {answer!r} in {before}"
                )

            self._link(example.prompt, example.corrupted or example.prompt)

    def family(self, prompt: str) -> str:
        """A prompt and its corrupted one stay together, and so do prompts that share one."""
        while (before := self._family.get(prompt, prompt)) != prompt:
            prompt = before
        return prompt

    def _link(self, prompt: str, corrupted: str) -> None:
        """Put two prompts into one family, which is called after the prompt that came first."""
        known = corrupted in self._family and prompt not in self._family
        first, second = self.family(corrupted if known else prompt), self.family(corrupted)
        for text in (second, prompt, corrupted):
            self._family[text] = first

    def examples(self) -> list[Example]:
        """The lines of the file."""
        return list(self.lines.values())


def _read(path: Path) -> dict[str, Example]:
    """The examples by where they stand."""
    try:
        lines = read_text(path, "utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SparselitError(f"data.path: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    found: dict[str, Example] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                found[where] = _example(parse_json(line))
            except ValueError as error:
                raise SparselitError(
                    f"{where}: not an example {{prompt, answer, wrong, corrupted?}}: {error}"
                ) from error
    if not found:
        raise SparselitError(f"data.path: {path} holds no examples")
    return found


def _example(row: Any) -> Example:
    if not isinstance(row, dict):
        raise ValueError(f"{str(row)[:40]!r} is no mapping")
    for key in _REQUIRED:
        if key not in row:
            raise ValueError(f"{key!r} is missing")
    for key, value in row.items():
        if key not in Example._fields:
            raise ValueError(f"unknown key {key!r}")
        if not isinstance(value, str) and not (value is None and key == "corrupted"):
            raise ValueError(f"{key!r} must be a text, got {value!r:.40}")
        if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{key!r} holds half a character (a lone surrogate), {value!r:.40}")
    return Example(**row)
