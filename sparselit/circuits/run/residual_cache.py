"""The residual stream of one set of edges, kept so that a set which differs from it only higher up begins there."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.run.blocks import blocks_below, residual_sites
from sparselit.model.wiring import Edges

#: Sets evaluated against one after which its streams are worth a forward pass of their own.
PATIENCE = 2


class Streams:
    """What one set of edges makes of the residual stream after each attention and each MLP, by portion of the examples.

    Args:
        edges: the model's edges.
        kept: the set, boolean (edge,).
        n_layers: of the model.

    Attributes:
        kept: the set.
        sites: where the stream is recorded, after each block.
        records: by first example of a portion and site, the stream (example, position, channel).
    """

    def __init__(self, edges: Edges, kept: Tensor, n_layers: int) -> None:
        self.kept = kept
        self.sites = residual_sites(n_layers)
        self.records: dict[int, dict[str, Tensor]] = {}
        self._edges = edges
        self._below = torch.tensor([blocks_below(name, 2 * n_layers) for name in edges.names])
        self._questions = 0

    def shared_blocks(self, kept: Tensor) -> int:
        """The first blocks in which ``kept`` equals the set; 0 where it is no subset, or after too few evaluations."""
        self._questions += 1
        if self._questions <= PATIENCE or bool((kept & ~self.kept).any()):
            return 0
        changed = self._below[self._edges.matrix[self.kept & ~kept]]
        return int(changed.min()) if len(changed) else len(self.sites)

    def after(self, blocks: int, start: int) -> Tensor:
        """The stream after that many blocks, of the portion that begins at example ``start``.

        Args:
            blocks: attentions and MLPs that have been computed, at least 1.
            start: the first example of the portion.

        Returns:
            The residual stream (example, position, channel).
        """
        return self.records[start][self.sites[blocks - 1]]
