"""Rules too simple to count as doing a task: what they score on held-out prompts says whether it can be cheated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparselit.data.examples import Examples

Integers: TypeAlias = NDArray[np.int64]

_MOST = 16  # equal tokens that a bag counts; more count as so many
_RIDGE = 1.0


def baseline_accuracies(train: Examples, held_out: Examples, vocab_size: int) -> dict[str, float]:
    """Accuracy of each baseline, fitted on ``train``, on ``held_out``; shares in [0, 1].

    ``majority`` always gives the most frequent answer; ``last token`` looks the prompt's last token up; ``fixed
    position`` looks up one token at the best distance from the beginning or from the end; ``bag of characters`` is a
    linear model of how often each token occurs.

    Args:
        train: what the rules are fitted to.
        held_out: what they are measured on.
        vocab_size: number of tokens.
    """
    answers, expected = train.answer.numpy(), held_out.answer.numpy()
    frequency = np.bincount(answers, minlength=vocab_size) / len(answers)

    def of_column(known: Integers, asked: Integers) -> tuple[float, float]:
        votes = np.tile(1e-3 * frequency, (vocab_size + 1, 1))  # an unknown token gets the most frequent answer
        np.add.at(votes, (known, answers), 1)
        best = votes.argmax(1)
        return float((best[known] == answers).mean()), float((best[asked] == expected).mean())

    last = [
        examples.tokens.numpy()[np.arange(len(examples.length)), examples.length.numpy() - 1]
        for examples in (train, held_out)
    ]
    columns = [
        of_column(*pair) for pair in zip(_columns(train, vocab_size), _columns(held_out, vocab_size), strict=False)
    ]
    return {
        "majority": float((expected == frequency.argmax()).mean()),
        "last token": of_column(*last)[1],
        "fixed position": max(columns)[1],
        "bag of characters": _bag(train, held_out, vocab_size),
    }


def visible_accuracy(examples: Examples) -> float:
    """Accuracy of the better of two rules: of answer and wrong answer, take the one that is, or is not, in the prompt.

    Where both or none are there, they toss a coin; 0.5 says that there is nothing to see.
    """
    real = examples.real.numpy()
    tokens = examples.tokens.numpy()
    answer, wrong = (((tokens == field.numpy()[:, None]) & real).any(1) for field in (examples.answer, examples.wrong))
    return float(0.5 + 0.5 * abs((answer & ~wrong).mean() - (wrong & ~answer).mean()))


def _columns(examples: Examples, vocab_size: int) -> Iterator[Integers]:
    """Tokens at each distance from the beginning and from the end, by turns; ``vocab_size`` where there is none."""
    tokens, length = examples.tokens.numpy(), examples.length.numpy()
    rows = np.arange(len(length))
    for distance in range(tokens.shape[1]):
        inside = distance < length
        for position in (np.full_like(length, distance), length - 1 - distance):
            yield np.where(inside, tokens[rows, np.clip(position, 0, tokens.shape[1] - 1)], vocab_size)


def _bag(train: Examples, held_out: Examples, vocab_size: int) -> float:
    """Least squares on which counts occur, so that any function of one count, summed over tokens, can be learned."""
    known, asked = (_counts(examples, vocab_size) for examples in (train, held_out))
    varies = known.any(0) & ~known.all(0)
    known, asked = (np.column_stack([counts[:, varies], np.ones(len(counts))]) for counts in (known, asked))
    target = np.eye(vocab_size)[train.answer.numpy()]
    weights = np.linalg.solve(known.T @ known + _RIDGE * np.eye(known.shape[1]), known.T @ target)
    return float(((asked @ weights).argmax(1) == held_out.answer.numpy()).mean())


def _counts(examples: Examples, vocab_size: int) -> NDArray[np.float64]:
    """(example, token × count) one where the token occurs so often."""
    tokens, length = examples.tokens.numpy(), examples.length.numpy()
    counts = np.zeros((len(length), vocab_size), dtype=np.int64)
    for position in range(tokens.shape[1]):
        inside = np.flatnonzero(position < length)
        counts[inside, tokens[inside, position]] += 1
    return np.eye(_MOST + 1)[np.minimum(counts, _MOST)].reshape(len(length), -1)
