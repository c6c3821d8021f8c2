"""Text to tokens and examples to tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparselit.data.examples import Examples
from sparselit.data.splits import Example
from sparselit.errors import SparselitError


class Tokenizer:
    """Cuts a text into words of a vocabulary, at each place the longest that fits; a word's place is its token.

    Args:
        vocabulary: two or more different words; most are single characters.
        owner: whose vocabulary it is, for messages.

    Attributes:
        index: token of each word.

    Raises:
        SparselitError: the vocabulary is too small, or holds a word twice or an empty one.
    """

    def __init__(self, vocabulary: Sequence[str], owner: str) -> None:
        self.index = {word: token for token, word in enumerate(vocabulary)}
        if len(self.index) < 2 or len(self.index) != len(vocabulary) or "" in self.index:
            raise SparselitError(f"{owner}.vocabulary must hold two or more different words, such as characters")
        longest_first = sorted(self.index, key=len, reverse=True)
        pattern = "|".join([*map(re.escape, longest_first), "."])  # the dot: whatever is not in the vocabulary
        self._pattern = re.compile(pattern, re.DOTALL) if len(longest_first[0]) > 1 else None

    def words(self, text: str) -> list[str]:
        """The words of a text; a character outside of the vocabulary comes alone and has no token."""
        return list(text) if self._pattern is None else self._pattern.findall(text)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens of many known texts at once.

        Returns:
            Tokens (text, position) int64, padded on the right with token 0, and the number in each text (text,) int64.
        """
        if self._pattern is None:
            return self._encode_characters(texts)
        rows = [[self.index[word] for word in self.words(text)] for text in texts]
        length = torch.tensor([len(row) for row in rows])
        width = int(length.max())
        return torch.tensor([row + [0] * (width - len(row)) for row in rows]), length

    def _encode_characters(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        table = np.zeros(max(map(ord, self.index)) + 1, dtype=np.int64)
        table[[ord(character) for character in self.index]] = list(self.index.values())
        padding, width = next(iter(self.index)), max(map(len, texts))
        text = "".join(text.ljust(width, padding) for text in texts)
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        tokens = torch.from_numpy(table[points].reshape(len(texts), width))
        return tokens, torch.tensor([len(text) for text in texts])


def to_tensors(examples: Sequence[Example], tokenizer: Tokenizer, strata: Sequence[str]) -> Examples:
    """Checked examples as tensors, as wide as the longest prompt among them.

    Args:
        examples: at least one.
        tokenizer: cuts prompts into tokens.
        strata: names of the strata, in their order.
    """
    tokens, length = tokenizer.encode([example.prompt for example in examples])
    corrupted, _ = tokenizer.encode([example.corrupted or example.prompt for example in examples])
    index = tokenizer.index
    return Examples(
        tokens=tokens,
        length=length,
        answer=torch.tensor([index[example.answer] for example in examples]),
        wrong=torch.tensor([index[example.wrong] for example in examples]),
        corrupted=corrupted,
        stratum=torch.tensor([strata.index(example.stratum) for example in examples]),
    )
