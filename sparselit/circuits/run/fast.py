"""The fast engine: sets of edges of one model on compacted models, and from the first block in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.closed import Closed, closed_model
from sparselit.circuits.run.compacted import Known, compacted_logits, known_of, known_portion, narrowed
from sparselit.circuits.run.compaction import Compacted, compact
from sparselit.circuits.run.masked import Context, context, masked_logits
from sparselit.circuits.run.naive import CHUNK, NaiveEngine
from sparselit.circuits.run.residual_cache import Streams
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

#: Most memory for residual streams that evaluations share, bytes.
STREAM_BYTES = 2**30
#: A set of edges gets a smaller model of its own where less than half, by this many, are left of the edges.
WORTH_COMPACTING = 500


class FastEngine(NaiveEngine):
    """As :class:`NaiveEngine`, and equal to it up to the order of summation; it remembers what it has computed.

    Args:
        model: the full model; it is not changed.
        edges: its edges, and its biases where the ablation can remove them.
        replacement: what a removed edge contributes.
        examples: those that :meth:`portions` and :meth:`focus` are about, where there are some.
    """

    def __init__(
        self, model: Transformer, edges: Edges, replacement: Replacement, examples: Examples | None = None
    ) -> None:
        super().__init__(model, edges, replacement)
        self.examples = examples
        self.compacted: Compacted | None = None  # of the set that was announced last, or of a larger one
        self.streams: Streams | None = None  # of the set that was announced last
        self._tried: Compacted | None = None  # of the set that was asked about last
        self._contexts: dict[int, Context] = {}  # by first example of a portion
        self._known: dict[int, tuple[Compacted, Known]] = {}  # by the same, for a compacted model

    @property
    def naive(self) -> NaiveEngine:
        """The same edges by the slowest and simplest path."""
        return NaiveEngine(self.model, self.edges, self.replacement)

    def focus(self, kept: Tensor) -> None:
        """Announce that only subsets of ``kept`` (edge,) will be asked about.

        They are evaluated on a smaller model, and from the first block on in which they differ from ``kept``.
        """
        current = len(self.edges) if self.compacted is None else len(self.compacted.origin)
        if self._tried is not None and torch.equal(self._tried.origin, kept.nonzero()[:, 0]):
            self.compacted = self._tried
        elif int(kept.sum()) <= 0.8 * current or (self.compacted is None and self.replacement.ablation.kind == "zero"):
            self.compacted = self._compact(kept)
        self._tried = None
        if self.compacted is not None:
            self._contexts.clear()
        if (self.streams is None or not torch.equal(kept, self.streams.kept)) and self._streams_fit():
            self.streams = Streams(self.edges, kept.clone(), len(self.model.layers))

    def _streams_fit(self) -> bool:
        """Whether there are examples, and the residual stream after every block fits into memory for all of them."""
        model = self.model if self.compacted is None else self.compacted.model
        if self.examples is None:
            return False
        return 8 * len(model.layers) * model.d_model * self.examples.tokens.numel() <= STREAM_BYTES

    @cached_property
    def closed(self) -> Closed | None:
        """The model without any edge; None where that depends on the prompt."""
        resample = self.replacement.ablation.kind == "resample"
        return None if resample else closed_model(self.model, self.replacement)

    def _compact(self, kept: Tensor) -> Compacted:
        return compact(self.model, self.edges, kept, self.replacement, self.closed)

    @torch.no_grad()
    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` edges, on the compacted model where it covers them."""
        small = self._smallest(kept)
        if small is not None:
            parts = [examples.select(slice(i, i + CHUNK)) for i in range(0, len(examples.answer), CHUNK)]
            shares = kept[small.origin]
            return torch.cat([compacted_logits(small, shares, known_portion(small, part)) for part in parts])
        within = None if bool(kept.all()) else self.masks(kept)  # the whole model stays the model bit for bit
        return self._answers(self.model, self.masks(kept), examples, within)

    @torch.no_grad()
    def run(self, kept: Tensor, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Logits with only ``kept`` edges in one forward pass, on the compacted model where it covers them."""
        small = self._covering(kept)
        if small is not None:
            return compacted_logits(small, kept[small.origin], known_of(small, tokens, at, corrupted))
        return masked_logits(self.model, self.masks(kept), context(self.model, self.replacement, tokens, at, corrupted))

    def soft_logits(self, shares: Tensor, examples: Examples) -> Tensor:
        """Answer logits where every edge is open by a share (edge,) in [0, 1]; gradients reach the shares.

        Shares of edges outside of the set that was announced last get no gradient if all of them are zero.
        """
        opened = shares.detach() > 0
        small, within = self._covering(opened), None
        if small is not None:
            return compacted_logits(small, shares[small.origin], known_portion(small, examples))
        if self.streams is not None and not bool((opened & ~self.streams.kept).any()):
            within = self.masks(self.streams.kept)
        return masked_logits(self.model, self.masks(shares), self.context(examples), within=within)

    def portions(self, kept: Tensor, count: Callable[[], None]) -> Callable[[slice], Tensor]:
        """Answer logits with only ``kept`` edges, of one slice of the engine's examples after the other.

        Args:
            kept: boolean (edge,).
            count: called before each forward pass.
        """
        small, examples = self._smallest(kept), self.examples
        streams = self.streams if small is self._covering(kept) else None
        shared = 0 if streams is None else streams.shared_blocks(kept)
        model = self.model if small is None else small.model
        masks = self.masks(kept) if small is None else {}
        if examples is None:
            raise ValueError("portions need examples, and this engine was made without")

        @torch.no_grad()
        def logits_of(portion: slice) -> Tensor:
            count()
            some, resume = examples.select(portion), None
            if streams is not None and shared:
                if portion.start not in streams.records:
                    count()
                    with model.sites.recorded(streams.sites) as streams.records[portion.start]:
                        self._portion(streams.kept, small, None, portion.start, some)
                resume = shared, streams.after(shared, portion.start)
            return self._portion(kept, small, masks, portion.start, some, resume)

        return logits_of

    def _portion(
        self,
        kept: Tensor,
        small: Compacted | None,
        masks: Mapping[str, Tensor] | None,
        start: int,
        some: Examples,
        resume: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Answer logits of a portion of the engine's examples that begins at ``start``."""
        if small is not None:
            return compacted_logits(small, kept[small.origin], self._knowing(small, start, some), resume)
        masks = self.masks(kept) if masks is None else masks
        return masked_logits(self.model, masks, self._context(start, some), resume, masks)

    def _knowing(self, small: Compacted, start: int, some: Examples) -> Known:
        """What a compacted model needs to know of a portion of the examples, computed once and handed on."""
        owner, known = self._known.get(start, (None, None))
        if owner is not small:
            if owner is not None and known is not None and self._covers(owner, small):
                known = narrowed(known, owner, small)
            else:
                known = known_portion(small, some)
            if small is self.compacted or owner is None:
                self._known[start] = small, known
        assert known is not None
        return known

    def _covers(self, wide: Compacted, small: Compacted) -> bool:
        inside = torch.zeros(len(self.edges), dtype=torch.bool)
        inside[wide.origin] = True
        return bool(inside[small.origin].all())

    def _covering(self, kept: Tensor) -> Compacted | None:
        small = self.compacted
        return small if small is not None and int(kept.sum()) == int(kept[small.origin].sum()) else None

    def _smallest(self, kept: Tensor) -> Compacted | None:
        """What to compute ``kept`` on: a model made for it where that is so much smaller that it pays."""
        small = self._covering(kept)
        size = len(kept) if small is None else len(small.origin)
        if size - 2 * int(kept.sum()) < WORTH_COMPACTING:
            return small
        self._tried = self._compact(kept)
        return self._tried

    def _context(self, start: int, some: Examples) -> Context:
        """What the ablation needs to know of a portion of the examples, computed once."""
        if start not in self._contexts:
            self._contexts[start] = self.context(some)
        return self._contexts[start]
