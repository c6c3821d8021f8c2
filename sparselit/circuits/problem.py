"""A problem: for which behaviour, under which criterion and ablation, a circuit of which model is sought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.compact import Compacted, compact
from sparselit.circuits.criterion import METRICS, Bound, Criterion, holds, hopeless, measure
from sparselit.circuits.masked import Ablation, AblationKind, masked_logits, source_means
from sparselit.circuits.wiring import Edges
from sparselit.errors import SparselitError
from sparselit.examples import Examples
from sparselit.transformer import Transformer

CHUNK = 4096  # examples per forward pass
PORTION = 512  # examples after which an evaluation may be given up


@dataclass
class Cost:
    """What a search has spent: evaluations of a set of edges, forward and backward passes."""

    evaluations: int = 0
    forwards: int = 0
    backwards: int = 0


class Problem:
    """A model, a behaviour, a criterion and an ablation; it answers "does the task still work with these edges?".

    Args:
        model: the full model; it is not changed.
        discovery: examples on which edges are removed.
        criterion: bounds that must all hold.
        ablation: what a removed edge contributes; ``mean`` takes the model's means over ``discovery``.

    Attributes:
        edges: every non-zero weight of the model, and every bias where the ablation can remove it.
        cost: running count of evaluations, forwards and backwards.

    Raises:
        SparselitError: the criterion is empty.
    """

    def __init__(
        self, model: Transformer, discovery: Examples, criterion: Criterion, ablation: AblationKind = "zero"
    ) -> None:
        if not criterion:
            raise SparselitError("the criterion is empty; give at least one {metric, at_most | at_least}")
        self.model = model
        self.discovery = discovery
        self.criterion: Sequence[Bound] = tuple(criterion)
        self.ablation = Ablation(ablation, source_means(model, discovery) if ablation == "mean" else {})
        self.edges = Edges.of(model, ablation)
        self.cost = Cost()
        self._compacted: Compacted | None = None

    def all_edges(self) -> Tensor:
        """The set of all edges, boolean (edge,)."""
        return torch.ones(len(self.edges), dtype=torch.bool)

    def focus(self, kept: Tensor) -> None:
        """Announce that only subsets of ``kept`` will be asked about, so that they are evaluated on a smaller model."""
        current = len(self.edges) if self._compacted is None else len(self._compacted.origin)
        if self._compacted is None or int(kept.sum()) <= 0.8 * current:
            self._compacted = compact(self.model, self.edges, kept, self.ablation)

    @torch.no_grad()
    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` edges, on the compacted model where it covers them."""
        model, edges, ablation, chosen = self.model, self.edges, self.ablation, kept
        small = self._compacted
        if small is not None and int(kept.sum()) == int(kept[small.origin].sum()):
            model, edges, ablation, chosen = small.model, small.edges, small.ablation, kept[small.origin]
        return _answer_logits(model, edges, ablation, chosen, examples)

    @torch.no_grad()
    def naive_logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """As :meth:`logits` on the full model, by the slowest and simplest path."""
        return _answer_logits(self.model, self.edges, self.ablation, kept, examples)

    def values(self, kept: Tensor, examples: Examples | None = None) -> dict[str, float]:
        """Every metric with only ``kept`` edges, on the discovery split or the examples given."""
        self.cost.evaluations += 1
        self.cost.forwards += 1
        examples = examples or self.discovery
        return measure(self.logits(kept, examples), examples)

    def works(self, kept: Tensor) -> bool:
        """Whether the criterion holds on the discovery split with only ``kept`` edges.

        The examples are run in portions, and the rest is spared once they cannot save the criterion any more.
        """
        n = len(self.discovery.answer)
        totals = dict.fromkeys((bound.metric for bound in self.criterion), 0.0)
        self.cost.evaluations += 1
        for start in range(0, n, PORTION):
            some = self.discovery.select(slice(start, start + PORTION))
            logits = self.logits(kept, some)
            self.cost.forwards += 1
            for metric in totals:
                totals[metric] += float(METRICS[metric](logits, some).double().sum())
            if any(hopeless(b, totals[b.metric], start + len(some.answer), n) for b in self.criterion):
                return False
        return holds(self.criterion, {metric: total / n for metric, total in totals.items()})


def _answer_logits(model: Transformer, edges: Edges, ablation: Ablation, kept: Tensor, examples: Examples) -> Tensor:
    masks = edges.masks(kept)
    device = next(model.parameters()).device
    masks = {name: mask.to(device) for name, mask in masks.items()}
    at = examples.length - 1
    return torch.cat(
        [
            masked_logits(model, masks, ablation, tokens, positions)
            for tokens, positions in zip(examples.tokens.split(CHUNK), at.split(CHUNK), strict=True)
        ]
    )
