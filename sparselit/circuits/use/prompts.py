"""Prompts that are not in a circuit's files: texts as tensors, and which token sequences are prompts of its task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.data.tokenizer import LongestMatch
from sparselit.errors import SparselitError

#: The right answer to a prompt, read off it by a rule; None, or any exception, where the rule has no answer.
Oracle = Callable[[str], str | None]


def encoded(texts: Sequence[str], vocabulary: Sequence[str], longest: int) -> list[list[int]]:
    """The tokens of each text.

    Args:
        texts: at least one; none is empty.
        vocabulary: the tokens as text.
        longest: most tokens that the model reads.

    Raises:
        SparselitError: a text is empty or too long, or a character is no token; the message names it.
    """
    tokenizer, found = LongestMatch(vocabulary, "the circuit's task"), []
    for text in texts:
        try:
            tokens = tokenizer.encode(text)
        except KeyError as error:
            raise SparselitError(f"{error} in the prompt {text!r:.60} is no token of the circuit's task") from None
        if not 0 < len(tokens) <= longest:
            raise SparselitError(f"the prompt {text!r:.60} has {len(tokens)} tokens; the model reads 1 to {longest}")
        found.append(tokens)
    return found


def stacked(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token sequences as tokens (row, position), padded with 0, and lengths (row,)."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]), torch.tensor([*map(len, rows)])


def unanswered(rows: Sequence[Sequence[int]]) -> Examples:
    """Token sequences as examples whose answers are not known: answer, wrong answer and stratum are 0.

    Args:
        rows: at least one sequence; each is its own corrupted prompt.
    """
    tokens, length = stacked(rows)
    nothing = torch.zeros_like(length)
    return Examples(tokens, length, nothing, nothing, tokens, nothing)


@dataclass(frozen=True)
class Domain:
    """Which token sequences count as prompts of a task: those that begin, go on and end as its known prompts do.

    A sequence belongs to it where its first token, its last token, each pair of neighbours and its length occur in the
    splits, and the rule, where there is one, has an answer that the splits have too. It is the smallest language of
    this kind (strictly locally testable, McNaughton & Papert 1971, window 2) that holds every known prompt.

    Attributes:
        vocabulary: the tokens as text.
        first: which tokens prompts begin with, boolean (token,).
        last: which they end with.
        pairs: which tokens follow which, boolean (token, next token).
        answers: which tokens are answers.
        shortest: tokens of the shortest prompt.
        longest: of the longest.
        solve: the rule; None where the task has none.
    """

    vocabulary: tuple[str, ...]
    first: Tensor
    last: Tensor
    pairs: Tensor
    answers: Tensor
    shortest: int
    longest: int
    solve: Oracle | None

    @classmethod
    def of(cls, behaviour: Behaviour, solve: Oracle | None = None) -> Domain:
        """The domain of a behaviour's splits, those out of distribution included.

        Args:
            behaviour: the known prompts.
            solve: the rule.
        """
        size = len(behaviour.vocabulary)
        first, last, answers = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
        pairs = torch.zeros(size, size, dtype=torch.bool)
        lengths = []
        for split in behaviour.splits.values():
            tokens, end = split.tokens, split.length - 1
            first[tokens[:, 0]] = True
            last[tokens.gather(1, end[:, None])[:, 0]] = True
            answers[split.answer] = answers[split.wrong] = True
            inside = split.real[:, 1:]
            pairs[tokens[:, :-1][inside], tokens[:, 1:][inside]] = True
            lengths += [int(split.length.min()), int(split.length.max())]
        return cls(tuple(behaviour.vocabulary), first, last, pairs, answers, min(lengths), max(lengths), solve)

    def looks_valid(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Which rows of tokens (row, position) with some lengths (row,) have the form of a prompt, boolean (row,)."""
        real = torch.arange(tokens.shape[1]) < length[:, None]
        followed = self.pairs[tokens[:, :-1], tokens[:, 1:]] | ~real[:, 1:]
        ends = self.first[tokens[:, 0]] & self.last[tokens.gather(1, length[:, None] - 1)[:, 0]]
        return ends & followed.all(1) & (length >= self.shortest) & (length <= self.longest)

    def right_answers(self, tokens: Tensor, length: Tensor) -> Tensor:
        """The right answer to each row (row,), by the rule; -1 where it has none, or no answer of the task.

        Args:
            tokens: (row, position).
            length: (row,).
        """
        known = {word: number for number, word in enumerate(self.vocabulary) if self.answers[number]}
        found = []
        for row, end in zip(tokens.tolist(), length.tolist(), strict=True):
            words = [self.vocabulary[token] for token in row[:end]]
            found.append(known.get(_answer(self.solve, words) or "", -1))
        return torch.tensor(found, dtype=torch.long)


def _answer(solve: Oracle | None, words: Sequence[str]) -> str | None:
    """What the rule says; the mark of a mixture's task, as in ``<Parity>``, is no part of the task's own prompt."""
    if solve is None:
        return None
    marked = len(words[0]) > 2 and words[0][0] == "<" and words[0][-1] == ">"
    try:
        return solve("".join(words[marked:]))
    except Exception:  # a rule may fail in any way on a text that is no prompt
        return None


def neighbours(tokens: Sequence[int], alphabet: Sequence[int]) -> list[list[int]]:
    """Every sequence with one token exchanged, by position and then by token.

    Args:
        tokens: the sequence.
        alphabet: tokens that may stand instead.
    """
    return [
        [*tokens[:i], other, *tokens[i + 1 :]] for i in range(len(tokens)) for other in alphabet if other != tokens[i]
    ]
