"""A problem: for which behaviour, under which criterion and ablation, a circuit of which model is sought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparselit.circuits.criterion import Bound, Criterion, Evaluation, is_relative
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.granularity import Granularity, RemovalUnits, removal_units
from sparselit.circuits.run.naive import NaiveEngine, OnEngine
from sparselit.circuits.run.structure import useful
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer


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


class Problem(OnEngine):
    """A model under an ablation, a behaviour and a criterion: does the task still work with some of the edges?

    Args:
        engine: the model, its edges and the ablation.
        discovery: examples on which edges are removed.
        criterion: bounds that must all hold.
        granularity: what is removed and certified: single weights, or all edges of a channel, head, layer or token.
        reference: answer logits (example, vocabulary) that a divergence compares with; default the full model's.

    Attributes:
        engine: the same, by the fast path.
        cost: running count of evaluations, forwards and backwards.

    Raises:
        SparselitError: the criterion is empty.
    """

    engine: FastEngine

    def __init__(
        self,
        engine: NaiveEngine,
        discovery: Examples,
        criterion: Criterion,
        granularity: Granularity = "weight",
        reference: Tensor | None = None,
    ) -> None:
        if not criterion:
            raise SparselitError("the criterion is empty; give at least one {metric, at_most | at_least}")
        fast = engine if isinstance(engine, FastEngine) else FastEngine(engine.model, engine.edges, engine.replacement)
        self.engine = fast.on(discovery)
        self.discovery = discovery
        self.criterion: Sequence[Bound] = tuple(criterion)
        self.granularity = granularity
        self.cost = Cost()
        if reference is None and is_relative(self.criterion):
            reference = self.engine.full(discovery)
        self.reference = reference

    @classmethod
    def of(
        cls,
        model: Transformer,
        discovery: Examples,
        criterion: Criterion,
        ablation: str | Mapping[str, Any] | Ablation = "zero",
        granularity: Granularity = "weight",
    ) -> Problem:
        """The problem of a model and an ablation whose means, if any, are taken over ``discovery``.

        Args:
            model: the full model.
            discovery: examples on which edges are removed.
            criterion: bounds that must all hold.
            ablation: a kind's name, its arguments, or an :class:`Ablation`.
            granularity: what is removed and certified as one.

        Raises:
            SparselitError: the criterion is empty, or the ablation is none.
        """
        engine = NaiveEngine.of(model, ablation, {"discovery": discovery})
        return cls(engine, discovery, criterion, granularity)

    def all_edges(self) -> Tensor:
        """The set of all edges, boolean (edge,)."""
        return self.engine.everything()

    def keeping(self, kept: Tensor) -> Subnetwork:
        """The sub-network of ``kept`` (edge,), by the fast path."""
        return Subnetwork(self.engine, kept)

    def removal_units(self, kept: Tensor) -> RemovalUnits:
        """What can be removed from ``kept``, one by one: sets of edges by name."""
        return removal_units(self.model, self.edges, kept, self.granularity)

    def at(self, granularity: Granularity) -> Problem:
        """The same problem with another granularity; what is spent on it counts here."""
        other = copy(self)
        other.granularity, other.engine = granularity, copy(self.engine)
        return other

    def on(self, examples: Examples, criterion: Criterion) -> Problem:
        """The same edges and ablation, its means included, on other examples and under other bounds.

        Args:
            examples: the other examples.
            criterion: bounds that must all hold on them.
        """
        return Problem(self.engine, examples, criterion, self.granularity)

    def useful(self, kept: Tensor) -> Tensor:
        """``kept`` without the edges that cannot matter under this ablation."""
        return useful(self.model, self.edges, kept) if self.ablation.kind == "zero" else kept

    def focus(self, kept: Tensor) -> None:
        """Announce that only subsets of ``kept`` will be evaluated."""
        self.engine.focus(kept)

    def logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """Answer logits (example, vocabulary) with only ``kept`` edges.

        Args:
            kept: boolean (edge,).
            examples: the prompts.
        """
        return self.engine.logits(kept, examples)

    def naive_logits(self, kept: Tensor, examples: Examples) -> Tensor:
        """As :meth:`logits` on the full model, by the slowest and simplest path.

        Args:
            kept: boolean (edge,).
            examples: the prompts.
        """
        return self.engine.naive.logits(kept, examples)

    def soft_logits(self, shares: Tensor, examples: Examples) -> Tensor:
        """Answer logits where every edge is open by a share (edge,) in [0, 1]; gradients reach the shares.

        Shares of edges outside of the set that was announced last get no gradient if all of them are zero.

        Args:
            shares: by how much each edge is open (edge,), in [0, 1].
            examples: the prompts.
        """
        return self.engine.soft_logits(shares, examples)

    def evaluation(self, kept: Tensor, everything: bool = False) -> Evaluation:
        """The criterion on the discovery split with only ``kept`` edges; reading it twice counts once.

        Args:
            kept: boolean (edge,).
            everything: whether every metric is computed; otherwise those of the criterion.
        """
        self.cost.evaluations += 1

        def count() -> None:
            self.cost.forwards += 1

        portions = self.engine.portions(kept, count)
        return Evaluation(self.criterion, portions, self.discovery, self.reference, everything=everything)

    def works(self, kept: Tensor) -> bool:
        """Whether the criterion holds on the discovery split with only ``kept`` edges."""
        return self.evaluation(kept).holds()

    def values(self, kept: Tensor) -> dict[str, float]:
        """Every metric on the discovery split with only ``kept`` edges."""
        return self.evaluation(kept, everything=True).values()
