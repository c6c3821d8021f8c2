"""A behaviour: the examples of a task in disjoint splits, and the prompt files that travel with a circuit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_bytes
from sparselit.runs.plain_file import holds, parse_json, read_bytes, read_text


@dataclass(frozen=True)
class Behaviour:
    """What a circuit is a circuit *of*.

    Attributes:
        splits: examples by split; ``discovery``, ``selection`` and ``report`` are always there and disjoint.
        vocabulary: the tokens as text, in the order of their numbers.
        strata: names of the strata that ``Examples.stratum`` counts.
        task: where the examples come from (class path and arguments), for the record.

    Examples:
        >>> from sparselit.data import Examples
        >>> a, b = torch.tensor([0]), torch.tensor([1])
        >>> examples = Examples(torch.tensor([[0, 2]]), torch.tensor([2]), a, b, torch.tensor([[1, 2]]), a)
        >>> behaviour = Behaviour(dict.fromkeys(("discovery", "selection", "report"), examples), "ab=")
        >>> behaviour.vocabulary[int(behaviour.splits["report"].answer)]
        'a'
    """

    splits: Mapping[str, Examples]
    vocabulary: Sequence[str]
    strata: Sequence[str] = ("all",)
    task: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split, examples in self.splits.items():
            n, different = len(examples.answer), examples.different
            if different < n:
                raise SparselitError(
                    f"of the {n:,} prompts of the {split} split only {different:,} are different; give each once"
                )

    def write(self, folder: Path) -> dict[str, Path]:
        """Write one JSON-lines file per split into ``folder`` and return the paths.

        A file that is already there with the same content is left alone.
        """
        paths = {split: folder / f"{split}.jsonl" for split in self.splits}
        for split, path in paths.items():
            content = "".join(self._lines(self.splits[split])).encode()
            if not holds(path, content):
                write_bytes(path, content)
        return paths

    def changed_in(self, folder: Path) -> Path | None:
        """The first prompt file of ``folder`` that holds other examples than these; None where all agree.

        What rests on a prompt file names it, so that it must not change under it.
        """
        for split, examples in self.splits.items():
            path = folder / f"{split}.jsonl"
            if os.path.lexists(path) and not holds(path, "".join(self._lines(examples)).encode()):
                return path
        return None

    def _lines(self, examples: Examples) -> list[str]:
        words = self.vocabulary
        lines = []
        for tokens, length, answer, wrong, corrupted, stratum in zip(*(f.tolist() for f in examples), strict=True):
            line = {
                "prompt": [words[t] for t in tokens[:length]],
                "answer": words[answer],
                "wrong": words[wrong],
                "corrupted": [words[t] for t in corrupted[:length]],
                "stratum": self.strata[stratum],
            }
            if all(len(word) == 1 for word in words):
                line["prompt"], line["corrupted"] = "".join(line["prompt"]), "".join(line["corrupted"])
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        return lines


@runtime_checkable
class Behaviours(Protocol):
    """What circuits can be sought for: an object that has behaviours by name.

    A task is one. What a model is trained on may be another object: a language model trains on texts, and circuits are
    sought for a few behaviours of it.
    """

    def behaviours(self, only: Sequence[str] = ()) -> dict[str, Behaviour]:
        """The behaviours by name; a single one may have the empty name.

        Args:
            only: names of those that are wanted; all where it is empty.
        """


def behaviours_of(data: object) -> Behaviours:
    """The data as what gives the behaviours."""
    if not isinstance(data, Behaviours):
        raise SparselitError(
            f"circuits need data with behaviours(), such as a sparselit.Task, and {type(data).__name__} has none"
        )
    return data


@dataclass(frozen=True)
class PromptFile:
    """What a circuit says of one of its prompt files.

    Attributes:
        file: path relative to the circuit's folder.
        sha256: of its bytes.
        n: number of examples.
    """

    file: str
    sha256: str
    n: int


def prompt_record(path: Path, root: Path) -> PromptFile:
    """A prompt file as a circuit in the folder ``root`` names it.

    Args:
        path: the prompt file.
        root: folder of the circuit.

    Raises:
        SparselitError: the file cannot be read.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise SparselitError(f"cannot read the prompts {path}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    return PromptFile(path.relative_to(root).as_posix(), digest, content.count(b"\n"))


def read_examples(path: Path, vocabulary: Sequence[str], strata: Sequence[str]) -> Examples:
    """Read one split that :meth:`Behaviour.write` wrote.

    Args:
        path: the prompt file.
        vocabulary: the tokens, in the order of their numbers.
        strata: names of the strata, in the order of their numbers.

    Raises:
        SparselitError: the file is missing, or a line does not parse; the message names the line.
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    rows: list[tuple[list[int], int, int, list[int], int]] = []
    try:
        lines = read_text(path).split("\n")  # not splitlines: U+2028 and U+0085 may be tokens
    except (OSError, ValueError) as error:
        raise SparselitError(f"cannot read the prompts {path}: {getattr(error, 'strerror', None) or error}") from error
    for i, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        try:
            row = parse_json(line)
            prompt, corrupted = ([number[t] for t in row[key]] for key in ("prompt", "corrupted"))
            if not prompt or len(corrupted) != len(prompt):
                raise ValueError("an empty prompt, or a corrupted prompt of another length")
            rows.append((prompt, number[row["answer"]], number[row["wrong"]], corrupted, strata.index(row["stratum"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SparselitError(f"{path}, line {i}: not an example of this circuit's task ({error!r})") from error
    if not rows:
        raise SparselitError(f"{path} holds no examples")
    longest = max(len(row[0]) for row in rows)
    pad = [[*row[0], *[0] * (longest - len(row[0]))] for row in rows]
    pad_corrupted = [[*row[3], *[0] * (longest - len(row[3]))] for row in rows]
    return Examples(
        torch.tensor(pad),
        torch.tensor([len(row[0]) for row in rows]),
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows]),
        torch.tensor(pad_corrupted),
        torch.tensor([row[4] for row in rows]),
    )
