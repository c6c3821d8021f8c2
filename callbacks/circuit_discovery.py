"""Circuit discovery at checkpoints: prune to the smallest sub-network that still does the task, certify, document."""

from __future__ import annotations

from typing import Literal

from sparselit.circuits import Ablation, Behaviour, Bound, Circuit, discover
from sparselit.circuits.criterion import ROBUST, check_criterion
from sparselit.circuits.discover import Depth
from sparselit.circuits.run.ablation import as_ablation
from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.search import Auto, Progress, Search
from sparselit.errors import LARGEST_COUNT, check_range
from sparselit.model.transformer import Transformer
from sparselit.training.discovery import Begin, Discovery


class CircuitDiscovery(Discovery):
    """Finds a circuit from which no single edge can be removed, at a cadence while the model trains.

    Args:
        criterion: bounds that must all hold, as in ``[{metric: task_loss, at_most: 0.15}]``, nats and shares; null for
            a ``task_loss`` of at most 0.15 and a divergence from the full model, ``kl``, of at most 0.02, under which
            sizes can be compared (docs/results/what_size_means.md).
        ablation: what a removed edge contributes: its mean over the task (``mean``), nothing (``zero``: smaller
            circuits, that say less), what it is on the corrupted prompt (``resample``), or a mapping of kind,
            distribution, per and norm.
        search: how candidates are chosen; default :class:`Auto`, coarse to fine.
        margin: how far the search tightens the bounds towards perfection, in [0, 1), because a minimal circuit sits on
            its bound and must still hold on the selection split.
        max_seconds: longest a search may take; an unfinished one gives a circuit that is not certified. Null for no
            limit, without which repeated runs write the same bytes.
        every_n_steps: optimizer steps between two searches, at least 1; the last step of the run is searched too,
            unless something else than its length ends it.
        begin: from when on; a model that is still dense is expensive to search.
        granularity: what is removed and certified as one: a ``weight``, or all edges of a ``channel``, ``head``,
            ``layer`` or ``token``.
        warm_start: begin each search with the newest circuit of an earlier step in the same folder, which is much
            faster where little has changed since, and may miss a smaller circuit elsewhere.
        task: the only one of several behaviours whose circuit is sought (of a mixture, or of a language model); null
            for all.
        evidence: ``quick``: all evidence that needs no search, seconds; ``full``: also how many edges the same search
            needs for a constant, a nonsense and a swapped target and for an untrained model, minutes.
    """

    def __init__(
        self,
        criterion: list[Bound] | None = None,
        ablation: Literal["zero", "mean", "resample"] | Ablation = "mean",
        search: Search | None = None,
        margin: float = 0.1,
        max_seconds: float | None = None,
        every_n_steps: int = 500,
        begin: Begin | None = None,
        granularity: Granularity = "weight",
        warm_start: bool = False,
        task: str | None = None,
        evidence: Depth = "quick",
    ) -> None:
        super().__init__(every_n_steps, begin, warm_start, task)
        check_range("circuits.margin", margin, 0, 1, below=True)
        if max_seconds is not None:
            check_range("circuits.max_seconds", max_seconds, 0, above=True, most=LARGEST_COUNT)
        if criterion is None:
            criterion = list(ROBUST)
        check_criterion(criterion)
        self.criterion = criterion
        self.ablation = as_ablation(ablation)
        self.granularity: Granularity = granularity
        self.search = search or Auto()
        self.margin = margin
        self.max_seconds = max_seconds
        self.evidence: Depth = evidence

    def find(
        self, model: Transformer, behaviour: Behaviour, progress: Progress, previous: Circuit | None = None
    ) -> Circuit:
        """Search, confirm on the selection split, and collect the evidence on the report split."""
        return discover(
            model,
            behaviour,
            self.criterion,
            self.ablation,
            self.search,
            self.margin,
            progress,
            self.max_seconds,
            self.granularity,
            previous.places if previous else (),
            self.evidence,
        )
