"""Text to tokens and examples to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sparselit.errors import SparselitError
from sparselit.examples import Examples
from sparselit.splits import Example


def index_of(vocabulary: Sequence[str], owner: str) -> dict[str, int]:
    """The token of each character: its place in the vocabulary.

    Args:
        vocabulary: two or more different single characters.
        owner: whose vocabulary it is, for messages.
    """
    index = {character: token for token, character in enumerate(vocabulary)}
    if len(index) < 2 or len(index) != len(vocabulary) or any(len(character) != 1 for character in index):
        raise SparselitError(f"{owner}.vocabulary must hold two or more different single characters")
    return index


def encode(texts: Sequence[str], index: Mapping[str, int], width: int) -> Tensor:
    """Tokens of many texts at once, (text, position) int64, padded on the right with token 0.

    Args:
        texts: texts of known characters, none longer than ``width``.
        index: token of each character.
        width: positions.
    """
    table = np.zeros(max(map(ord, index)) + 1, dtype=np.int64)
    table[[ord(character) for character in index]] = list(index.values())
    padding = next(character for character, token in index.items() if token == 0)
    text = "".join(text.ljust(width, padding) for text in texts)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return torch.from_numpy(table[points].reshape(len(texts), width))


def to_tensors(examples: Sequence[Example], index: Mapping[str, int], strata: Sequence[str]) -> Examples:
    """Checked examples as tensors, as wide as the longest prompt among them.

    Args:
        examples: at least one.
        index: token of each character.
        strata: names of the strata, in their order.
    """
    width = max(len(example.prompt) for example in examples)
    return Examples(
        tokens=encode([example.prompt for example in examples], index, width),
        length=torch.tensor([len(example.prompt) for example in examples]),
        answer=torch.tensor([index[example.answer] for example in examples]),
        wrong=torch.tensor([index[example.wrong] for example in examples]),
        corrupted=encode([example.corrupted or example.prompt for example in examples], index, width),
        stratum=torch.tensor([strata.index(example.stratum) for example in examples]),
    )
