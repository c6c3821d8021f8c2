"""A sub-network: these edges, in this model, under this ablation, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from sparselit.circuits.circuit import Size
from sparselit.circuits.criterion import measure
from sparselit.circuits.run.blocks import blocks_below, residual_sites
from sparselit.circuits.run.masked import Context
from sparselit.circuits.run.naive import NaiveEngine, OnEngine
from sparselit.circuits.run.patch import Patch
from sparselit.circuits.size import free_parameters, nodes_of
from sparselit.data.examples import Examples


@dataclass(frozen=True, eq=False)
class Subnetwork(OnEngine):
    """A set of edges of a model, all others ablated.

    How it is computed is the engine's affair: naively, or fast. Sub-networks of one model under one ablation share
    their engine, so that :meth:`keeping` costs nothing.

    Attributes:
        engine: the model, its edges and the ablation, and the way by which logits are computed.
        kept: boolean (edge,), the set.
    """

    engine: NaiveEngine
    kept: Tensor

    @classmethod
    def of(cls, engine: NaiveEngine) -> Subnetwork:
        """All edges of a model."""
        return Subnetwork(engine, engine.everything())

    @property
    def whole(self) -> Subnetwork:
        """All edges: the full model."""
        return self.of(self.engine)

    @property
    def naive(self) -> Subnetwork:
        """The same set by the slowest and simplest path."""
        return Subnetwork(self.engine.naive, self.kept)

    def keeping(self, kept: Tensor) -> Subnetwork:
        """Another set of edges, boolean (edge,), of the same model under the same ablation."""
        return Subnetwork(self.engine, kept)

    def logits(self, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary)."""
        return self.engine.logits(self.kept, examples)

    def run(self, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Next-token logits, in one forward pass.

        Args:
            tokens: (batch, position) int64.
            at: (batch,) int64, the one position of each sequence that is computed; None for all.
            corrupted: (batch, position), the corrupted prompts, which resample ablation needs.

        Returns:
            Logits (batch, position, vocabulary), or (batch, vocabulary) with ``at``.
        """
        return self.engine.run(self.kept, tokens, at, corrupted)

    def on(self, examples: Examples) -> Observed:
        """The sub-network on some examples, few enough for one forward pass, to look inside."""
        return self.naive.watched(examples)

    def watched(self, examples: Examples) -> Observed:
        """As :meth:`on`, computed by the sub-network's own engine."""
        return Observed(self, examples, self.engine.context(examples))

    @property
    def size(self) -> Size:
        """How large it is."""
        return Size(
            nodes=sum(map(len, nodes_of(self.edges, self.kept).values())),
            edges=self.edges.weights(self.kept),
            free=free_parameters(self.model, self.edges, self.kept, self.ablation),
        )


@dataclass(frozen=True, eq=False)
class Observed:
    """A sub-network on some examples, to look inside.

    Attributes:
        network: the sub-network.
        examples: what it is run on, few enough for one forward pass.
        known: what the ablation needs of the examples.
    """

    network: Subnetwork
    examples: Examples
    known: Context

    def keeping(self, kept: Tensor) -> Observed:
        """Another set of edges on the same examples; shares in [0, 1] open edges partly."""
        return Observed(self.network.keeping(kept), self.examples, self.known)

    @property
    def kept(self) -> Tensor:
        """The set of edges, boolean (edge,)."""
        return self.network.kept

    @cached_property
    def whole(self) -> Observed:
        """The full model on the same examples."""
        return self.keeping(self.network.engine.everything())

    @cached_property
    def full(self) -> Tensor:
        """The full model's answer logits."""
        known = self.whole._ran.get("logits")
        return self.whole.logits() if known is None else known

    @cached_property
    def _seen(self) -> dict[str, Tensor]:
        """Activations that were recorded, by site."""
        return {}

    @cached_property
    def _ran(self) -> dict[str, Tensor]:
        """The logits of the run in which they were."""
        return {}

    def logits(self) -> Tensor:
        """Answer logits (example, vocabulary)."""
        return self.network.engine.observe(self.kept, self.known).logits

    def recorded(self, sites: Sequence[str]) -> dict[str, Tensor]:
        """Activations at the named sites in the same run; a second time nothing is run."""
        new = [site for site in sites if site not in self._seen]
        if new:
            ran = self.network.engine.observe(self.kept, self.known, new)
            self._seen.update(ran.records)
            if not any(site.endswith(".pattern") for site in new):  # with patterns attention is computed in another way
                self._ran["logits"] = ran.logits
        return {site: self._seen[site] for site in sites}

    def patched(self, patches: Mapping[str, Patch]) -> Tensor:
        """Answer logits of the same run with channels of some sites as in another.

        It begins at the first block that is another one, where the residual stream before it was recorded.
        """
        engine, sites = self.network.engine, residual_sites(len(self.network.model.layers))
        below = min((blocks_below(site, len(sites)) for site in patches), default=0)
        before = self._seen.get(sites[below - 1]) if below else None
        resume = None if before is None else (below, before)
        return engine.observe(self.kept, self.known, (), patches, resume).logits

    def measured(self, logits: Tensor) -> dict[str, float]:
        """Every metric of some answer logits, the full model's being the reference."""
        return measure(logits, self.examples, self.full)

    @cached_property
    def nodes(self) -> dict[str, tuple[int, ...]]:
        """The circuit's nodes that are activations: channels by site, without tokens, positions and logits.

        A channel that only a bias reaches is a constant of the circuit and says nothing about the prompt.
        """
        nodes = nodes_of(self.network.edges, self.kept & ~self.network.edges.is_bias)
        return {site: nodes[site] for site in self.network.model.sites if site in nodes and site != "logits"}
