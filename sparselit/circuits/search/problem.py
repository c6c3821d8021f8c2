"""A problem: for which behaviour, under which criterion and ablation, a circuit of which model is sought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.criterion import Bound, Criterion, Evaluation, is_relative
from sparselit.circuits.run.ablation import Ablation, as_ablation, prepare
from sparselit.circuits.run.compaction import Compacted, compact
from sparselit.circuits.run.granularity import Granularity, Units, units_of
from sparselit.circuits.run.masked import Context, answer_logits, context, masked_logits
from sparselit.circuits.run.residual_cache import Streams
from sparselit.circuits.run.structure import useful
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

#: Most memory for residual streams that evaluations share, bytes.
STREAM_BYTES = 2**30
#: A set of edges gets a smaller model of its own where less than half, by this many, are left of the edges.
WORTH_COMPACTING = 500


@dataclass
class Cost:
    """What a search has spent.

    Attributes:
        evaluations: sets of edges tried.
        forwards: forward passes over a portion of the examples, or more of them.
        backwards: backward passes.
        seconds: wall time.
        peak_memory: largest memory of the process (on a GPU: of its tensors) meanwhile, MiB.
    """

    evaluations: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    peak_memory: float = 0.0


class Problem:
    """A model, a behaviour, a criterion and an ablation; it answers "does the task still work with these edges?".

    Args:
        model: the full model; it is not changed.
        discovery: examples on which edges are removed.
        criterion: bounds that must all hold.
        ablation: what a removed edge contributes: a kind's name, its arguments, or an :class:`Ablation`.
        granularity: what is removed and certified: single weights, or all edges of a channel, head, layer or token.
        splits: the behaviour's splits, where the ablation takes its means over another one than ``discovery``.
        reference: answer logits (example, vocabulary) that a divergence compares with; default the full model's.

    Attributes:
        edges: every non-zero weight of the model, and every bias where the ablation can remove it.
        cost: running count of evaluations, forwards and backwards.

    Raises:
        SparselitError: the criterion is empty.
    """

    def __init__(
        self,
        model: Transformer,
        discovery: Examples,
        criterion: Criterion,
        ablation: str | Mapping[str, Any] | Ablation = "zero",
        granularity: Granularity = "weight",
        splits: Mapping[str, Examples] | None = None,
        reference: Tensor | None = None,
    ) -> None:
        if not criterion:
            raise SparselitError("the criterion is empty; give at least one {metric, at_most | at_least}")
        self.model = model
        self.discovery = discovery
        self.criterion: Sequence[Bound] = tuple(criterion)
        self.ablation = as_ablation(ablation)
        self.replacement = prepare(model, self.ablation, {**(splits or {}), "discovery": discovery})
        self.edges = Edges.of(model, self.ablation.removes_biases)
        self.granularity = granularity
        self.cost = Cost()
        self._compacted: Compacted | None = None  # of the set that was announced last, or of a larger one
        self._tried: Compacted | None = None  # of the set that was asked about last
        self._streams: Streams | None = None  # of the set that was announced last
        self._contexts: dict[int, Context] = {}  # by first example of a portion
        if reference is None and is_relative(self.criterion):
            reference = self.naive_logits(self.all_edges(), discovery)
        self.reference = reference

    def all_edges(self) -> Tensor:
        """The set of all edges, boolean (edge,)."""
        return torch.ones(len(self.edges), dtype=torch.bool)

    def units(self, kept: Tensor) -> Units:
        """What can be removed from ``kept``, one by one: sets of edges by name."""
        return units_of(self.model, self.edges, kept, self.granularity)

    def at(self, granularity: Granularity) -> Problem:
        """The same problem with another granularity; what is spent on it counts here."""
        other = copy(self)
        other.granularity = granularity
        return other

    def on(self, examples: Examples, criterion: Criterion) -> Problem:
        """The same edges and ablation, its means included, asked about other examples and bounds."""
        other = copy(self)
        other.discovery, other.criterion, other.cost = examples, tuple(criterion), Cost()
        other._compacted, other._streams, other._contexts = None, None, {}
        other.reference = self.naive_logits(self.all_edges(), examples) if is_relative(criterion) else None
        return other

    def useful(self, kept: Tensor) -> Tensor:
        """``kept`` without the edges that cannot matter under this ablation."""
        return useful(self.model, self.edges, kept) if self.ablation.kind == "zero" else kept

    def focus(self, kept: Tensor) -> None:
        """Announce that only subsets of ``kept`` will be asked about.

        They are evaluated on a smaller model, and from the first block on in which they differ from ``kept``.
        """
        current = len(self.edges) if self._compacted is None else len(self._compacted.origin)
        if self._tried is not None and torch.equal(self._tried.origin, kept.nonzero()[:, 0]):
            self._compacted = self._tried
        elif self._compacted is None or int(kept.sum()) <= 0.8 * current:
            self._compacted = compact(self.model, self.edges, kept, self.replacement)
        self._tried = None
        if (self._streams is None or not torch.equal(kept, self._streams.kept)) and self._streams_fit():
            self._streams = Streams(self.edges, kept.clone(), len(self.model.layers))

    def _streams_fit(self) -> bool:
        """Whether the residual stream after every block fits into memory, for all discovery examples."""
        model = self.model if self._compacted is None else self._compacted.model
        return 8 * len(model.layers) * model.d_model * self.discovery.tokens.numel() <= STREAM_BYTES

    @torch.no_grad()
    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` edges, on the compacted model where it covers them."""
        small = self._smallest(kept)
        if small is None:
            within = None if bool(kept.all()) else kept  # the whole model stays the model bit for bit
            return answer_logits(self.model, self.edges, self.replacement, kept, examples, within=within)
        chosen = kept[small.origin]
        return answer_logits(small.model, small.edges, small.replacement, chosen, examples, self.model)

    @torch.no_grad()
    def naive_logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """As :meth:`logits` on the full model, by the slowest and simplest path."""
        return answer_logits(self.model, self.edges, self.replacement, kept, examples)

    def soft_logits(self, shares: Tensor, examples: Examples) -> Tensor:
        """Answer logits where every edge is open by a share (edge,) in [0, 1]; gradients reach the shares.

        Shares of edges outside of the set that was announced last get no gradient if all of them are zero.
        """
        model, edges, replacement, chosen = self.model, self.edges, self.replacement, shares
        opened = shares.detach() > 0
        small = self._covering(opened)
        if small is not None:
            model, edges, replacement, chosen = small.model, small.edges, small.replacement, shares[small.origin]
        device = examples.tokens.device
        masks = {name: mask.to(device) for name, mask in edges.masks(chosen).items()}
        at = examples.length - 1
        known = context(self.model, self.replacement, examples.tokens, examples.corrupted, at)
        within = None
        if small is None and self._streams is not None and not bool((opened & ~self._streams.kept).any()):
            within = self._masks(self._streams.kept, None)
        return masked_logits(model, masks, replacement, examples.tokens, at, examples.corrupted, known, None, within)

    def evaluation(self, kept: Tensor) -> Evaluation:
        """The criterion on the discovery split with only ``kept`` edges; asking it twice counts once."""
        self.cost.evaluations += 1
        small = self._smallest(kept)
        streams = self._streams if small is self._covering(kept) else None
        shared = 0 if streams is None else streams.shared_blocks(kept)
        model = self.model if small is None else small.model
        replacement = self.replacement if small is None else small.replacement
        masks = self._masks(kept, small)

        @torch.no_grad()
        def logits_of(portion: slice) -> Tensor:
            self.cost.forwards += 1
            some = self.discovery.select(portion)
            at, known = some.length - 1, self._context(portion.start, some)
            resume = None
            if streams is not None and shared:
                if portion.start not in streams.records:
                    self.cost.forwards += 1
                    whole = self._masks(streams.kept, small)
                    with model.sites.recorded(streams.sites) as streams.records[portion.start]:
                        masked_logits(model, whole, replacement, some.tokens, at, some.corrupted, known, within=whole)
                resume = shared, streams.after(shared, portion.start)
            return masked_logits(model, masks, replacement, some.tokens, at, some.corrupted, known, resume, masks)

        return Evaluation(self.criterion, logits_of, self.discovery, self.reference)

    def _masks(self, kept: Tensor, small: Compacted | None) -> dict[str, Tensor]:
        """One mask per matrix and bias, of the full model or of the compacted one."""
        masks = self.edges.masks(kept) if small is None else small.edges.masks(kept[small.origin])
        device = next(self.model.parameters()).device
        return {name: mask.to(device) for name, mask in masks.items()}

    def works(self, kept: Tensor) -> bool:
        """Whether the criterion holds on the discovery split with only ``kept`` edges."""
        return self.evaluation(kept).holds()

    def values(self, kept: Tensor) -> dict[str, float]:
        """Every metric on the discovery split with only ``kept`` edges."""
        return self.evaluation(kept).values()

    def _covering(self, kept: Tensor) -> Compacted | None:
        small = self._compacted
        return small if small is not None and int(kept.sum()) == int(kept[small.origin].sum()) else None

    def _smallest(self, kept: Tensor) -> Compacted | None:
        """What to compute ``kept`` on: a model made for it where that is so much smaller that it pays."""
        small = self._covering(kept)
        size = len(kept) if small is None else len(small.origin)
        if size - 2 * int(kept.sum()) < WORTH_COMPACTING:
            return small
        self._tried = compact(self.model, self.edges, kept, self.replacement)
        return self._tried or small

    def _context(self, start: int, some: Examples) -> Context:
        """What the ablation needs to know of a portion of the examples, computed once."""
        if start not in self._contexts:
            self._contexts[start] = context(self.model, self.replacement, some.tokens, some.corrupted, some.length - 1)
        return self._contexts[start]
