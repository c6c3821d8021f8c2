"""The fast engine: sets of edges of one model on compacted models, and from the first block in which they differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.by_edge import EdgeModel, worth_it
from sparselit.circuits.run.closed import Closed, closed_model
from sparselit.circuits.run.compacted import (
    Known,
    compacted_logits,
    kinds_of,
    known_in,
    known_kinds,
    known_of,
    known_portion,
    narrowed,
)
from sparselit.circuits.run.compaction import Compacted, compact
from sparselit.circuits.run.distinct import Distinct, InOrder
from sparselit.circuits.run.masked import Context, context, masked_logits
from sparselit.circuits.run.naive import CHUNK, NaiveEngine, Ran
from sparselit.circuits.run.patch import Patch, patched
from sparselit.circuits.run.residual_cache import Streams
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

#: Most memory for residual streams that evaluations share, bytes.
STREAM_BYTES = 2**30
#: A set of edges gets a smaller model of its own where less than half, by this many, are left of the edges.
WORTH_COMPACTING = 500
#: The same where the whole model runs edge by edge: less than this share of the edges.
WORTH_LEAVING = 0.25
#: No prompt looks like another.
ALL = Distinct(torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long), None)
#: Sets of examples whose logits of the whole model are remembered.
SPLITS = 4


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
        self._kinds: deque[tuple[Compacted, Distinct]] = deque(maxlen=2)  # of the examples, to a compacted model
        self._full: deque[tuple[Examples, Tensor]] = deque(maxlen=SPLITS)  # the whole model's logits
        self._seen: tuple[Compacted, Context, Known] | None = None  # of the prompts that were observed last

    @property
    def naive(self) -> NaiveEngine:
        """The same edges by the slowest and simplest path."""
        return NaiveEngine(self.model, self.edges, self.replacement)

    def focus(self, kept: Tensor) -> None:
        """Announce that only subsets of ``kept`` (edge,) will be asked about.

        They are evaluated on a smaller model, and from the first block on in which they differ from ``kept``.
        """
        before = self.compacted
        current = len(self.edges) if before is None else len(before.origin)
        if self._tried is not None and torch.equal(self._tried.origin, kept.nonzero()[:, 0]):
            self.compacted = self._tried
        elif int(kept.sum()) <= 0.8 * current or (self.compacted is None and self.replacement.ablation.kind == "zero"):
            self.compacted = self._compact(kept)
        self._tried = None
        if self.compacted is not None:
            self._contexts.clear()
        same = self.streams is not None and self.compacted is before and torch.equal(kept, self.streams.kept)
        if not same and self._streams_fit():
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

    @cached_property
    def by_edge(self) -> EdgeModel | None:
        """The model edge by edge, where that is faster than by matrix."""
        worth = worth_it(self.model, self.edges, self.replacement)
        return EdgeModel(self.model, self.edges, self.replacement) if worth else None

    def on(self, examples: Examples) -> FastEngine:
        """The same for portions of other examples."""
        other = FastEngine(self.model, self.edges, self.replacement, examples)
        other.__dict__.update({name: self.__dict__[name] for name in ("closed", "by_edge") if name in self.__dict__})
        other._full = self._full
        return other

    @torch.no_grad()
    def full(self, examples: Examples) -> Tensor:
        """The whole model's answer logits (example, vocabulary), computed once for each set of examples."""
        found = self._known_full(examples)
        if found is None:
            found = self._whole(self.everything(), examples)
            self._full.append((examples, found))
        return found

    def _known_full(self, examples: Examples | None) -> Tensor | None:
        return next((logits for known, logits in self._full if known is examples), None)

    def answers_of(self, model: Transformer, examples: Examples) -> Tensor:
        """As :meth:`NaiveEngine.answers_of`, edge by edge where that is faster."""
        replacement = Replacement()
        edges = Edges.of(model, with_biases=False)
        if not worth_it(model, edges, replacement):
            return super().answers_of(model, examples)
        known = Context(replacement, examples.tokens, examples.length - 1)
        return EdgeModel(model, edges, replacement).run(torch.ones(len(edges), dtype=torch.bool), known).logits

    def _whole(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits on the full model."""
        if self.by_edge is not None:
            parts = [examples.select(slice(i, i + CHUNK)) for i in range(0, len(examples.answer), CHUNK)]
            return torch.cat([self.by_edge.run(kept, self.context(part)).logits for part in parts])
        within = None if bool(kept.all()) else self.masks(kept)  # the whole model stays the model bit for bit
        return self._answers(self.model, self.masks(kept), examples, within)

    def _compact(self, kept: Tensor) -> Compacted:
        return compact(self.model, self.edges, kept, self.replacement, self.closed)

    @torch.no_grad()
    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` edges, on the compacted model where it covers them."""
        if bool(kept.all()):
            return self.full(examples)
        small = self._smallest(kept)
        if small is not None:
            shares, kinds = kept[small.origin], kinds_of(small, examples)
            parts = [slice(i, i + CHUNK) for i in range(0, len(kinds.at), CHUNK)]
            if kinds.back is None:
                each = [known_portion(small, examples.select(part)) for part in parts]
            else:
                each = [known_kinds(small, kinds, part) for part in parts]
            found = torch.cat([compacted_logits(small, shares, known) for known in each])
            return found if kinds.back is None else found[kinds.back]
        return self._whole(kept, examples)

    @torch.no_grad()
    def observe(
        self,
        kept: Tensor,
        known: Context,
        record: Sequence[str] = (),
        patches: Mapping[str, Patch] | None = None,
        resume: tuple[int, Tensor] | None = None,
    ) -> Ran:
        """As :meth:`NaiveEngine.observe`; nothing has to be recorded, a compacted model does where it covers ``kept``.

        Args:
            kept: boolean (edge,), or shares in [0, 1].
            known: :meth:`context` of the prompts.
            record: sites whose activations are wanted.
            patches: by site, the channels with values that are not their own.
            resume: where to begin, see :meth:`Transformer.forward`.
        """
        soft = kept.dtype.is_floating_point
        small = None if soft or record else self._smallest(kept)
        if small is not None:
            if self._seen is None or self._seen[0] is not small or self._seen[1] is not known:
                self._seen = small, known, known_in(small, known)
            edits = {site: patched(small.patch(site, patch)) for site, patch in (patches or {}).items()}
            with small.model.sites.edited(after=edits):
                return Ran(compacted_logits(small, kept[small.origin], self._seen[2]), {})
        if self.by_edge is not None:
            return self.by_edge.run(kept, known, resume, record, patches)
        return super().observe(kept, known, record, patches, resume)

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
        masks: Mapping[str, Tensor] = self.masks(kept) if small is None and self.by_edge is None else {}
        if examples is None:
            raise ValueError("portions need examples, and this engine was made without")
        whole = self._known_full(examples) if bool(kept.all()) else None
        if whole is not None:
            return InOrder(ALL, lambda portion: whole[portion])
        kinds = ALL if small is None else self._kinds_to(small, examples)

        @torch.no_grad()
        def logits_of(part: slice) -> Tensor:
            count()
            known: Known | Context
            if small is None:
                known = self._context(part.start, examples.select(part))
            elif kinds.back is None:
                known = self._knowing(small, part.start, examples.select(part))
            else:
                known = known_kinds(small, kinds, part)
            resume = None
            if streams is not None and shared:
                if part.start not in streams.records:
                    count()
                    ran = self._ran(streams.kept, small, known, None, record=streams.sites)
                    streams.records[part.start] = dict(ran.records)
                resume = shared, streams.after(shared, part.start)
            return self._ran(kept, small, known, masks, resume).logits

        return InOrder(kinds, logits_of)

    def _ran(
        self,
        kept: Tensor,
        small: Compacted | None,
        known: Known | Context,
        masks: Mapping[str, Tensor] | None,
        resume: tuple[int, Tensor] | None = None,
        record: Sequence[str] = (),
    ) -> Ran:
        """A run on what is known of a portion of the engine's examples."""
        if isinstance(known, Context) and self.by_edge is not None:
            return self.by_edge.run(kept, known, resume, record)
        with (self.model if small is None else small.model).sites.recorded(record) as records:
            if small is not None and isinstance(known, Known):
                return Ran(compacted_logits(small, kept[small.origin], known, resume), records)
            assert isinstance(known, Context)
            masks = self.masks(kept) if masks is None else masks
            return Ran(masked_logits(self.model, masks, known, resume, masks), records)

    def _kinds_to(self, small: Compacted, examples: Examples) -> Distinct:
        """The engine's examples that differ to a compacted model."""
        found = next((kinds for owner, kinds in self._kinds if owner is small), None)
        if found is None:
            found = kinds_of(small, examples)
            self._kinds.append((small, found))
        return found

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
        left = int(kept.sum())
        if size - 2 * left < WORTH_COMPACTING:
            return small
        if small is None and self.by_edge is not None and left > WORTH_LEAVING * size:
            return None
        if self._tried is None or not torch.equal(self._tried.origin, kept.nonzero()[:, 0]):
            self._tried = self._compact(kept)
        return self._tried

    def _context(self, start: int, some: Examples) -> Context:
        """What the ablation needs to know of a portion of the examples, computed once."""
        if start not in self._contexts:
            self._contexts[start] = self.context(some)
        return self._contexts[start]
