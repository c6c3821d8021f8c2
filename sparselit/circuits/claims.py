"""What a circuit claims about itself: its certificate and its evidence, as ``circuit.json`` writes them.

Every class is one object of the file, with the file's own names; ``docs/reference/circuit_file.md`` says what each
field means in full. Losses and divergences are nats, shares lie in [0, 1], intervals are 95 %. What computes these lies
in ``search/`` and ``evidence/``; ``verify`` computes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from sparselit.circuits.criterion import METRICS, Bound
from sparselit.circuits.run.ablation import Norm
from sparselit.circuits.run.granularity import Granularity
from sparselit.runs.json_record import FIRST, Count, named_numbers, since

Interval = tuple[float, float]
T = TypeVar("T")


def extended(kind: type[T], base: Any, **more: Any) -> T:
    """A record of a subclass: the fields of ``base``, and those that the subclass adds.

    Args:
        kind: the subclass, a dataclass.
        base: a record of its base class.
        more: values of the fields that the subclass adds.
    """
    return kind(**{part.name: getattr(base, part.name) for part in fields(base)}, **more)


# -- the certificate ---------------------------------------------------------------------------------------------------


class Removal(NamedTuple):
    """What happens when one unit alone is removed.

    Attributes:
        unit: as in ``layers.0.attn.q.weight[5,2]``.
        values: the metrics of the certificate's criterion without it, by name.
    """

    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What happens on the discovery split when each unit alone is removed.

    Attributes:
        split: ``discovery``.
        n: its examples.
        criterion: the bounds of the search: those stated, or tighter.
        granularity: what was removed as one.
        complete: whether every unit was tried against the final circuit and is necessary.
        removals: in the order of the forward pass.
        min_margin: the least by which the criterion fails without a unit.
    """

    split: str
    n: Count
    criterion: tuple[Bound, ...]
    granularity: Granularity
    complete: bool
    removals: tuple[Removal, ...]
    min_margin: float

    def without(self, unit: str) -> Mapping[str, float]:
        """The metrics without a unit; empty where it was not tried."""
        return next((removal.values for removal in self.removals if removal.unit == unit), {})


# -- scores ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Score:
    """Every metric on a split, with its interval, the worst example and n; the fields of a version are in the docs."""

    task_loss: float
    answer_loss: float
    calibrated_loss: float | None = field(default=None, metadata=since(2))
    accuracy: float
    kl: float
    kl_max: float
    accuracy_interval: Interval
    task_loss_interval: Interval | None = field(default=None, metadata=since(2))
    answer_loss_interval: Interval | None = field(default=None, metadata=since(2))
    kl_interval: Interval | None = field(default=None, metadata=since(2))
    task_loss_max: float | None = field(default=None, metadata=since(2))
    margin_min: float | None = field(default=None, metadata=since(2))
    n: Count

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics alone, by name."""
        return {name: value for name in METRICS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class HeldOut(Score):
    """The circuit on the report split, also by kind of prompt."""

    split: str = field(metadata=FIRST)
    strata: Mapping[str, Score]


@dataclass(frozen=True, kw_only=True)
class Complement(Score):
    """The full model with exactly the circuit's edges removed; its task loss is the necessity loss."""

    split: str = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class OtherNorm(Score):
    """The circuit with norms as they are not in its ablation."""

    norm: Norm = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class NullScore(Score):
    """What the criterion says where there is nothing to find."""

    meets_criterion: bool = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class Necessity:
    """How many of ``edges`` break the stated criterion when removed alone."""

    split: str
    still_necessary: Count
    edges: Count
    n: Count


# -- faithfulness ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Worst:
    """Several measurements of the same thing.

    Attributes:
        runs: how many.
        meet_criterion: how many of them do.
        worst: the worst value of each metric that the criterion bounds, of the task loss and of the accuracy.
    """

    runs: Count
    meet_criterion: Count
    worst: Mapping[str, float] = field(metadata=named_numbers(METRICS, "_worst"))

    @property
    def worst_loss(self) -> float:
        """Largest task loss."""
        return self.worst["task_loss"]

    @property
    def worst_accuracy(self) -> float:
        """Smallest accuracy."""
        return self.worst["accuracy"]


@dataclass(frozen=True, kw_only=True)
class SiteScore:
    """A run with the nodes of one site exchanged."""

    task_loss: float
    accuracy: float
    kl: float


@dataclass(frozen=True, kw_only=True)
class Exchange(Worst):
    """The circuit's nodes of one site at a time exchanged between two runs, by site."""

    sites: Mapping[str, SiteScore] = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class Interchange:
    """The full model with the circuit's values, and the circuit with the full model's."""

    into_full: Exchange
    into_circuit: Exchange


@dataclass(frozen=True, kw_only=True)
class Relaxation(Worst):
    """Task loss and accuracy while all other edges are opened together, in tenths."""

    task_loss: tuple[float, ...] = field(metadata=FIRST)
    accuracy: tuple[float, ...] = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class Unexplained:
    """Share of the variance of some nodes, as they are and after the best scale and shift; None without variance."""

    unexplained: float | None
    rescaled: float | None


@dataclass(frozen=True, kw_only=True)
class Attended:
    """Share of a head's attention that goes elsewhere than in the full model: mean, and worst prompt."""

    total_variation: float
    total_variation_max: float


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """What the circuit does inside, beside the full model.

    Attributes:
        split: ``report``.
        n: examples, the first ones.
        activations: by site.
        attention: by head, as in ``layers.0.attn[1]``.
        interchange: nodes exchanged between circuit and model.
        random_halves: random halves of all other edges in place.
        relaxation: all other edges opened step by step.
        other_norm: None where the model has no norms.
    """

    split: str
    n: Count
    activations: Mapping[str, Unexplained]
    attention: Mapping[str, Attended]
    interchange: Interchange
    random_halves: Worst
    relaxation: Relaxation
    other_norm: OtherNorm | None


@dataclass(frozen=True, kw_only=True)
class DarkMatter:
    """What is left unexplained of task loss, divergence and, by site, the variance of the residual stream."""

    task_loss: float | None
    kl: float | None
    residual: Mapping[str, float | None]
    n: Count


# -- what else could stand outside -------------------------------------------------------------------------------------


class OpenEdge(NamedTuple):
    """An edge outside of the circuit (a bias has column 0), and the share by which it is put back, in (0, 1]."""

    parameter: str
    row: Count
    column: Count
    share: float


@dataclass(frozen=True, kw_only=True)
class Opened(Score):
    """The circuit with some of the other edges put back."""

    edges: tuple[OpenEdge, ...] = field(metadata=FIRST)


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The worst of the other edges put back, chosen on some prompts and measured on the report split.

    Attributes:
        chosen_on: the split that they were chosen on, its first examples.
        budget: most edges that are put back; of shares, their largest sum.
        restarts: random starts of the gradient's search.
        broken_by: of the edges in greedy's order, with how many the stated criterion fails; None: with none of them.
        greedy: one whole edge after the other.
        gradient: shares of all edges, by projected gradient ascent.
    """

    chosen_on: str
    budget: Count
    restarts: Count
    broken_by: Count | None
    greedy: Opened
    gradient: Opened


# -- nulls -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Random circuits: how many there are, how many meet the criterion, the best and the middle."""

    draws: Count
    meet_criterion: Count
    task_loss_best: float
    task_loss_median: float
    accuracy_best: float
    n: Count


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Edges of a random order until the criterion holds, for some orders."""

    edges_needed: tuple[Count, ...]
    median: Count
    n: Count


class KeptPlace(NamedTuple):
    """An edge or, with column 0, a bias."""

    parameter: str
    row: Count
    column: Count


@dataclass(frozen=True, kw_only=True)
class SearchedNull:
    """What the same search needs where there is nothing to find.

    Attributes:
        bounds: what was sought.
        edges: how many weights were needed; None: none were found.
        complete: whether no single one can go.
        reached: the metrics of ``bounds``.
        split: ``discovery``.
        n: its examples.
        places: the edges and biases themselves.
    """

    bounds: tuple[Bound, ...]
    edges: Count | None
    complete: bool
    reached: Mapping[str, float] = field(metadata=named_numbers(METRICS))
    split: str
    n: Count
    places: tuple[KeptPlace, ...]


@dataclass(frozen=True, kw_only=True)
class Nulls:
    """What the same criterion says where there is nothing to find; ``searched`` is None without a search."""

    random_circuits: Drawn
    magnitude_matched: Drawn | None = field(default=None, metadata=since(2))
    random_orders: Orders
    shuffled_answers: NullScore
    untrained_model: NullScore
    searched: Mapping[str, SearchedNull] | None = field(default=None, metadata=since(2, null=True))


# -- all of it ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence for a circuit, under its ablation, on the report split where nothing else is said.

    Attributes:
        full_model: score of the full model.
        sufficiency: the circuit on ``discovery`` and ``selection``.
        held_out: the circuit on the report split.
        out_of_distribution: the circuit on that split; None without one.
        necessity: each edge removed alone.
        complement: the full model without the circuit's edges.
        faithfulness: what the circuit does inside.
        nulls: what the criterion says where there is nothing to find.
        unexplained: share of the loss: 0 is a perfect circuit, 1 an empty one.
        dark_matter: unexplained shares of loss, divergence and residual stream.
        flags: names of what speaks against the circuit.
        other_ablations: the same edges under the ablations that were not searched under, by kind.
        adversary: the worst edges put back; None without a search for them.
    """

    full_model: Score
    sufficiency: Mapping[str, Score]
    held_out: HeldOut
    out_of_distribution: Score | None
    necessity: Necessity
    complement: Complement
    faithfulness: Faithfulness | None = field(default=None, metadata=since(2))
    nulls: Nulls
    unexplained: float
    dark_matter: DarkMatter | None = field(default=None, metadata=since(2))
    flags: tuple[str, ...] | None = field(default=None, metadata=since(2))
    other_ablations: Mapping[str, Score] | None = field(default=None, metadata=since(4))
    adversary: Adversary | None = field(default=None, metadata=since(4, null=True))
