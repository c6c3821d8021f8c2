"""The naive engine: sets of edges of one model, computed one by one, by masked tensors in the full model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Ablation, Norm, Replacement, as_ablation, prepare
from sparselit.circuits.run.masked import Context, context, masked_logits
from sparselit.circuits.run.patch import Patch, patched
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

CHUNK = 2048  # examples per forward pass
_Engine = TypeVar("_Engine", bound="NaiveEngine")


class Ran(NamedTuple):
    """What one run gives.

    Attributes:
        logits: answer logits (example, vocabulary).
        records: activations (example, position, channel) by site.
    """

    logits: Tensor
    records: Mapping[str, Tensor]


class NaiveEngine:
    """A model whose edges can be ablated. Every set of edges is one plain masked forward pass; nothing is remembered.

    Args:
        model: the full model; it is not changed.
        edges: its edges, and its biases where the ablation can remove them.
        replacement: what a removed edge contributes.
    """

    def __init__(self, model: Transformer, edges: Edges, replacement: Replacement) -> None:
        self.model = model
        self.edges = edges
        self.replacement = replacement

    @classmethod
    def of(
        cls: type[_Engine],
        model: Transformer,
        ablation: str | Mapping[str, Any] | Ablation = "zero",
        splits: Mapping[str, Examples] | None = None,
    ) -> _Engine:
        """All edges of a model under an ablation.

        Args:
            model: the full model.
            ablation: a kind's name, its arguments, or an :class:`Ablation`.
            splits: examples by split, where the ablation takes means over one of them.

        Raises:
            SparselitError: the ablation is none, or its distribution is no split.
        """
        ablation = as_ablation(ablation)
        replacement = prepare(model, ablation, splits or {})
        return cls(model, Edges.of(model, ablation.removes_biases), replacement)

    @property
    def naive(self) -> NaiveEngine:
        """The same edges by the slowest and simplest path: this one."""
        return self

    def in_model(self: _Engine, model: Transformer) -> _Engine:
        """All edges of another model under the same ablation."""
        ablation = self.replacement.ablation
        return type(self)(model, Edges.of(model, ablation.removes_biases), self.replacement.in_model(model))

    def with_norm(self: _Engine, norm: Norm) -> _Engine:
        """The same edges where norms are live, or frozen."""
        ablation = replace(self.replacement.ablation, norm=norm)
        return type(self)(self.model, self.edges, replace(self.replacement, ablation=ablation))

    def everything(self) -> Tensor:
        """The set of all edges, boolean (edge,)."""
        return torch.ones(len(self.edges), dtype=torch.bool)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """One mask for each matrix and bias of the model, on its device; ``kept`` (edge,) is boolean or shares."""
        device = next(self.model.parameters()).device
        return {name: mask.to(device) for name, mask in self.edges.masks(kept).items()}

    def context(self, examples: Examples) -> Context:
        """What the ablation needs of some examples at their answer positions."""
        return context(self.model, self.replacement, examples.tokens, examples.length - 1, examples.corrupted)

    @torch.no_grad()
    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` (edge,) edges; shares in [0, 1] open them partly.

        Args:
            kept: boolean (edge,), or shares in [0, 1].
            examples: the prompts.
        """
        return self._answers(self.model, self.masks(kept), examples)

    @torch.no_grad()
    def run(self, kept: Tensor, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Logits with only ``kept`` (edge,) edges in one forward pass; arguments as those of :func:`context`.

        Args:
            kept: boolean (edge,), or shares in [0, 1].
            tokens: (batch, position) int64.
            at: (batch,) int64, the one position of each sequence that is computed; None for all.
            corrupted: corrupted prompts (batch, position), which ``resample`` needs.

        Returns:
            Logits (batch, position, vocabulary); with ``at``, (batch, vocabulary).
        """
        return masked_logits(self.model, self.masks(kept), context(self.model, self.replacement, tokens, at, corrupted))

    @torch.no_grad()
    def answers_of(self, model: Transformer, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) of another model, nothing ablated.

        Args:
            model: the other model.
            examples: the prompts.
        """
        logits: Tensor = model(examples.tokens, examples.length - 1)
        return logits

    @torch.no_grad()
    def observe(
        self,
        kept: Tensor,
        known: Context,
        record: Sequence[str] = (),
        patches: Mapping[str, Patch] | None = None,
        resume: tuple[int, Tensor] | None = None,
    ) -> Ran:
        """Answer logits and activations of one run in which channels may have the values of another.

        Args:
            kept: boolean (edge,), or shares in [0, 1].
            known: :meth:`context` of the prompts.
            record: sites whose activations are wanted.
            patches: by site, the channels with values that are not their own.
            resume: where to begin, see :meth:`Transformer.forward`.
        """
        sites, edits = self.model.sites, {site: patched(patch) for site, patch in (patches or {}).items()}
        with sites.edited(after=edits), sites.recorded(record) as records:
            return Ran(masked_logits(self.model, self.masks(kept), known, resume), records)

    def _answers(
        self,
        model: Transformer,
        masks: Mapping[str, Tensor],
        examples: Examples,
        within: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        parts = [examples.select(slice(i, i + CHUNK)) for i in range(0, len(examples.answer), CHUNK)]
        return torch.cat([masked_logits(model, masks, self.context(part), within=within) for part in parts])


class OnEngine:
    """What is said of some edges of one engine.

    Attributes:
        engine: the model, its edges, and what a removed one contributes.
    """

    engine: NaiveEngine

    @property
    def model(self) -> Transformer:
        """The full model; it is not changed."""
        return self.engine.model

    @property
    def edges(self) -> Edges:
        """Every non-zero weight of the model, and every bias where the ablation can remove it."""
        return self.engine.edges

    @property
    def ablation(self) -> Ablation:
        """What a removed edge contributes."""
        return self.engine.replacement.ablation
