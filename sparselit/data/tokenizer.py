"""Text to tokens and examples to tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sparselit.data.examples import Examples
from sparselit.data.splits import Example
from sparselit.errors import SparselitError


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens and back; a token is an integer in [0, ``size``).

    :class:`LongestMatch` is one. Any other object with these members can be a task's ``tokenizer``.
    """

    @property
    def vocabulary(self) -> Sequence[str]:
        """A name for each token, all different: what circuits and pictures show of it."""

    @property
    def size(self) -> int:
        """Number of tokens."""

    def words(self, text: str) -> list[str]:
        """The pieces of a text, one for each token; a piece that has no token is among them."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            KeyError: a piece has no token; the error holds the piece.
        """

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some tokens."""


class LongestMatch:
    """Cuts a text into words of a vocabulary, at each position the longest that fits; a word's index is its token.

    Args:
        vocabulary: two or more different words; most are single characters.
        owner: whose vocabulary it is, for messages.

    Attributes:
        vocabulary: the words.
        index: token of each word.

    Raises:
        SparselitError: the vocabulary is too small, or holds a word twice or an empty one.

    Examples:
        >>> tokenizer = LongestMatch(["a", "b", "ab", "="], "Copying")
        >>> tokenizer.words("abb="), tokenizer.encode("abb=")
        (['ab', 'b', '='], [2, 1, 3])
        >>> tokenizer.decode([2, 1, 3]), tokenizer.size
        ('abb=', 4)
    """

    def __init__(self, vocabulary: Sequence[str], owner: str) -> None:
        self.vocabulary = list(vocabulary)
        self.index = {word: token for token, word in enumerate(vocabulary)}
        if len(self.index) < 2 or len(self.index) != len(vocabulary) or "" in self.index:
            raise SparselitError(f"{owner}.vocabulary must hold two or more different words, such as characters")
        longest_first = sorted(self.index, key=len, reverse=True)
        pattern = "|".join([*map(re.escape, longest_first), "."])  # the dot: whatever is not in the vocabulary
        self._pattern = re.compile(pattern, re.DOTALL) if len(longest_first[0]) > 1 else None

    def words(self, text: str) -> list[str]:
        """The words of a text; a character outside of the vocabulary comes alone and has no token."""
        return list(text) if self._pattern is None else self._pattern.findall(text)

    @property
    def size(self) -> int:
        """Number of words."""
        return len(self.index)

    @property
    def has_single_characters(self) -> bool:
        """Whether every word is one character, so that :meth:`encode_characters` does for many texts."""
        return self._pattern is None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            KeyError: a character is outside of the vocabulary; the error holds it.
        """
        return [self.index[word] for word in self.words(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of some tokens, joined."""
        return "".join([self.vocabulary[token] for token in tokens])

    def encode_characters(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens of many known texts at once, as :func:`encode_all` gives them, where all words are characters."""
        table = np.zeros(max(map(ord, self.index)) + 1, dtype=np.int64)
        table[[ord(character) for character in self.index]] = list(self.index.values())
        padding, width = next(iter(self.index)), max(map(len, texts))
        text = "".join(text.ljust(width, padding) for text in texts)
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        tokens = torch.from_numpy(table[points].reshape(len(texts), width))
        return tokens, torch.tensor([len(text) for text in texts])


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens of many texts, none with a piece that has no token.

    Args:
        tokenizer: cuts them into tokens.
        texts: at least one.

    Returns:
        Tokens (text, position) int64, padded on the right with token 0, and the number in each text (text,) int64.
    """
    if isinstance(tokenizer, LongestMatch) and tokenizer.has_single_characters:
        return tokenizer.encode_characters(texts)
    rows = [tokenizer.encode(text) for text in texts]
    length = torch.tensor([len(row) for row in rows])
    width = int(length.max())
    return torch.tensor([row + [0] * (width - len(row)) for row in rows]), length


def to_tensors(examples: Sequence[Example], tokenizer: Tokenizer, strata: Sequence[str]) -> Examples:
    """Checked examples as tensors, as wide as the longest prompt among them.

    Args:
        examples: at least one.
        tokenizer: cuts prompts into tokens.
        strata: names of the strata, in their order.
    """
    tokens, length = encode_all(tokenizer, [example.prompt for example in examples])
    corrupted, _ = encode_all(tokenizer, [example.corrupted or example.prompt for example in examples])
    return Examples(
        tokens=tokens,
        length=length,
        answer=torch.tensor([tokenizer.encode(example.answer)[0] for example in examples]),
        wrong=torch.tensor([tokenizer.encode(example.wrong)[0] for example in examples]),
        corrupted=corrupted,
        stratum=torch.tensor([strata.index(example.stratum) for example in examples]),
    )
