"""Values that are known before a model runs: the same everywhere, by position, by token, or by prompt and position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparselit.model.sites import Edit

RowKind = Literal["all", "position", "token", "example"]


@dataclass(frozen=True)
class Rows:
    """A row of numbers for each place of some prompts.

    Attributes:
        per: what the rows differ by: nothing, the position, the token there, or the prompt and the position.
        table: (1, channel), (position, channel), (token, channel), or (example or 1, position or 1, channel).
    """

    per: RowKind
    table: Tensor

    def of(self, x: Tensor, tokens: Tensor, at: Tensor | None) -> Tensor:
        """The rows that belong to an activation, in a shape that can be added to it.

        Args:
            x: (example, position, channel); with ``at`` perhaps the answers' positions only, (example, 1, channel); or
                (position, channel) where it is the same for all prompts.
            tokens: (example, position).
            at: (example,) the answers' positions, where only those are wanted.
        """
        answers = at if x.ndim == 3 and x.shape[1] == 1 else None
        length = x.shape[-2]
        if self.per == "all":
            return self.table[0]
        if self.per == "position":
            return self.table[:length] if answers is None else self.table[answers][:, None]
        if self.per == "token":
            return self.table[tokens if answers is None else tokens.gather(1, answers[:, None])]
        if answers is not None and self.table.shape[1] > 1:
            wide = self.table.expand(len(answers), -1, -1)
            return wide.gather(1, answers[:, None, None].expand(-1, 1, wide.shape[-1]))
        return self.table[0] if x.ndim == 2 and len(self.table) == 1 else self.table

    def adding(self, tokens: Tensor, at: Tensor | None) -> Edit:
        """The edit that adds the rows; arguments as for :meth:`of`."""
        return lambda x: x + self.of(x, tokens, at)

    def channels(self, index: Tensor) -> Rows:
        """Some channels; -1 stands for one that is zero."""
        index = index.to(self.table.device)
        taken = self.table.index_select(-1, index.clamp(min=0))
        return Rows(self.per, torch.where(index >= 0, taken, torch.zeros((), dtype=taken.dtype, device=taken.device)))
