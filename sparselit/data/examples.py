"""Examples and sequences as tensors: what data hand to the model, the circuit search and the verification."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Examples(NamedTuple):
    """A batch, or a whole split, of one behaviour.

    Prompts are padded on the right with token 0. Under causal attention the padding cannot reach the answer position,
    so no attention mask is needed.

    Attributes:
        tokens: (example, position) int64, the prompts.
        length: (example,) int64, tokens in each prompt; the answer is read from the logits at position ``length - 1``.
        answer: (example,) int64, the right next token.
        wrong: (example,) int64, the wrong answer that competes with it.
        corrupted: (example, position) int64, the same prompts with the deciding token changed, so that ``wrong``
            becomes right; equal to ``tokens`` for a task without corrupted prompts.
        stratum: (example,) int64, index into the task's ``strata``.
    """

    tokens: Tensor
    length: Tensor
    answer: Tensor
    wrong: Tensor
    corrupted: Tensor
    stratum: Tensor

    @property
    def real(self) -> Tensor:
        """Which positions belong to the prompt, up to its answer position, boolean (example, position)."""
        return _inside(self.tokens, self.length)

    @property
    def different(self) -> int:
        """How many different prompts there are."""
        prompts = torch.cat([self.tokens.masked_fill(~self.real, -1), self.length[:, None]], dim=1).cpu()
        return len(set(map(bytes, prompts.numpy())))

    def select(self, index: Tensor | slice) -> Examples:
        """The examples at ``index`` (an integer or boolean tensor, or a slice), in that order."""
        return Examples(*(field[index] for field in self))


class Sequences(NamedTuple):
    """A batch of texts, or a whole split, in which every next token is predicted: what a language model learns from.

    Texts are padded on the right with token 0. The loss is over all positions but the last of each text.

    Attributes:
        tokens: (text, position) int64.
        length: (text,) int64, tokens in each text, at least 2.
    """

    tokens: Tensor
    length: Tensor

    @property
    def real(self) -> Tensor:
        """Which positions belong to the text, boolean (text, position)."""
        return _inside(self.tokens, self.length)

    def select(self, index: Tensor | slice) -> Sequences:
        """The texts at ``index`` (an integer or boolean tensor, or a slice), in that order."""
        return Sequences(*(field[index] for field in self))


def _inside(tokens: Tensor, length: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=length.device) < length[:, None]
