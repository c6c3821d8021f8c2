"""Faithfulness beyond the output: does a circuit compute what the full model computes, inside too?

Everything here runs the plain masked forward pass on the first report examples, so that discovery and ``verify`` do
the same. The published critique of pruned circuits (Drori 2026) names what each part looks for: nodes that change their
meaning, attention patterns that vanish, parts outside of the circuit that cancel out, norms that do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sparselit.circuits.circuit import nodes_of
from sparselit.circuits.claims import (
    Attended,
    Exchange,
    Faithfulness,
    Interchange,
    OtherNorm,
    Relaxation,
    SiteScore,
    Unexplained,
    Worst,
    extended,
)
from sparselit.circuits.criterion import Criterion, measure
from sparselit.circuits.evidence.scores import DIGITS, rounded, score, worst_of
from sparselit.circuits.run.ablation import Replacement, real_positions, real_rows
from sparselit.circuits.run.interchange import exchanged
from sparselit.circuits.run.masked import Context, context, masked_logits
from sparselit.data.examples import Examples
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

#: Report examples on which activations are compared: the first ones.
EXAMPLES = 256
#: Random halves of the complement that are tried.
HALVES = 20
#: Steps of the complement's mask between closed and open.
STEPS = 10


@dataclass(frozen=True)
class Subject:
    """A circuit in its model, on some examples, run by the plain masked forward pass.

    Attributes:
        model: the full model.
        edges: its edges.
        replacement: what a removed edge contributes.
        kept: the circuit, boolean (edge,).
        examples: what it is run on, few enough for one forward pass.
    """

    model: Transformer
    edges: Edges
    replacement: Replacement
    kept: Tensor
    examples: Examples

    @cached_property
    def known(self) -> Context:
        """What the ablation needs to know of the examples."""
        some = self.examples
        return context(self.model, self.replacement, some.tokens, some.corrupted, some.length - 1)

    @cached_property
    def everything(self) -> Tensor:
        """All edges, boolean (edge,): the full model."""
        return torch.ones_like(self.kept)

    @cached_property
    def full(self) -> Tensor:
        """The full model's answer logits."""
        return self.logits(self.everything)

    @torch.no_grad()
    def logits(self, shares: Tensor) -> Tensor:
        """Answer logits (example, vocabulary) where every edge is open by a share (edge,); booleans are 0 and 1."""
        device = next(self.model.parameters()).device
        masks = {name: mask.to(device) for name, mask in self.edges.masks(shares).items()}
        some = self.examples
        return masked_logits(
            self.model, masks, self.replacement, some.tokens, some.length - 1, some.corrupted, self.known
        )

    def recorded(self, shares: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
        """Activations at the named sites in the same run."""
        with self.model.sites.recorded(sites) as records:
            self.logits(shares)
        return records

    def patched(self, shares: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        """Answer logits of the same run with activations edited as they leave their sites."""
        with self.model.sites.edited(after=edits):
            return self.logits(shares)

    def measured(self, logits: Tensor) -> dict[str, float]:
        """Every metric of some answer logits."""
        return measure(logits, self.examples, self.full)

    @cached_property
    def nodes(self) -> dict[str, list[int]]:
        """The circuit's nodes that are activations: channels by site, without tokens, positions and logits.

        A channel that only a bias reaches is a constant of the circuit and says nothing about the prompt.
        """
        nodes = nodes_of(self.edges, self.kept & ~self.edges.is_bias)
        return {site: nodes[site] for site in self.model.sites if site in nodes and site != "logits"}


def faithfulness(subject: Subject, criterion: Criterion) -> Faithfulness:
    """Every comparison of this module.

    Args:
        subject: the circuit, on some report examples.
        criterion: the stated bounds.
    """
    return Faithfulness(
        split="report",
        n=len(subject.examples.answer),
        activations=activations(subject),
        attention=attention(subject),
        interchange=interchange(subject, criterion),
        random_halves=random_halves(subject, criterion),
        relaxation=relaxation(subject, criterion),
        other_norm=other_norm(subject),
    )


def activations(subject: Subject) -> dict[str, Unexplained]:
    """How far the circuit's own nodes carry in the circuit what they carry in the full model.

    Returns:
        By site, over the circuit's channels there and all positions of the prompts: ``unexplained``, the fraction of
        the full model's variance that the circuit's value leaves unexplained (0 is equal, 1 as good as the mean), and
        ``rescaled``, the same after the best scale and shift of each channel: what is left there is not a matter of
        size. Both are null where the full model's values do not vary.
    """
    mine, theirs = (subject.recorded(edges, list(subject.nodes)) for edges in (subject.kept, subject.everything))
    real = real_positions(subject.examples)
    found = {}
    for site, channels in subject.nodes.items():
        one, other = (real_rows(records[site], real)[:, channels].double() for records in (mine, theirs))
        found[site] = Unexplained(unexplained=fraction_unexplained(one, other), rescaled=_rescaled(one, other))
    return found


def fraction_unexplained(one: Tensor, other: Tensor) -> float | None:
    """Fraction of the variance of ``other`` (row, channel) that ``one`` leaves unexplained, pooled over channels."""
    variance = _centred(other).square().sum()
    return round(float((one - other).square().sum() / variance), DIGITS) if _varies(other) else None


def _rescaled(one: Tensor, other: Tensor) -> float | None:
    """As :func:`fraction_unexplained` after a least-squares scale and shift of each channel."""
    if not _varies(other):
        return None
    x, y = _centred(one), _centred(other)
    variance = y.square().sum(0)
    power = x.square().sum(0)
    explained = torch.where(power > _TINY * len(x), (x * y).sum(0).square() / power.clamp(min=1e-300), 0.0)
    return round(max(0.0, float(1 - explained.sum() / variance.sum())), DIGITS)


_TINY = 1e-12  # a variance below is rounding


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(0)


def _varies(x: Tensor) -> bool:
    return bool(_centred(x).square().mean() > _TINY)


def attention(subject: Subject) -> dict[str, Attended]:
    """Total variation between a head's attention in the circuit and in the full model, for each head with a value.

    Returns:
        By head, as in ``layers.0.attn[1]``: ``total_variation``, the share of the attention that goes elsewhere, in
        [0, 1], mean over prompts and their positions, the sink counted as a place; and ``total_variation_max``, of the
        worst prompt.
    """
    width = subject.model.d_head
    heads = {
        site: sorted({channel // width for channel in channels})
        for site, channels in subject.nodes.items()
        if site.endswith(".attn.v")
    }
    sites = [site.removesuffix("v") + "pattern" for site in heads]
    mine, theirs = (subject.recorded(edges, sites) for edges in (subject.kept, subject.everything))
    real = real_positions(subject.examples)
    found = {}
    for site, numbers in heads.items():
        block = site.removesuffix(".v")
        for head in numbers:
            one, other = (records[f"{block}.pattern"][:, head] for records in (mine, theirs))
            difference = one - other  # (example, query, key)
            elsewhere = (difference.abs().sum(-1) + difference.sum(-1).abs()) / 2  # the sink has what is missing
            some = real if elsewhere.shape[1] == real.shape[1] else torch.ones_like(elsewhere, dtype=torch.bool)
            each = (elsewhere * some).sum(1) / some.sum(1)
            mean, worst = float((elsewhere * some).sum() / some.sum()), float(each.max())
            found[f"{block}[{head}]"] = Attended(
                total_variation=round(mean, DIGITS), total_variation_max=round(worst, DIGITS)
            )
    return found


def interchange(subject: Subject, criterion: Criterion) -> Interchange:
    """The circuit's nodes of one site exchanged between the two runs, in both directions.

    An interchange intervention (Geiger et al. 2021, §3) between the circuit and the full model on the same prompt
    instead of between two prompts: a node that means the same in both can be exchanged without harm.

    Returns:
        ``into_full``: the full model with the circuit's values; ``into_circuit``: the circuit with the full model's.
    """
    return Interchange(
        into_full=_exchange(subject, subject.everything, subject.kept, criterion),
        into_circuit=_exchange(subject, subject.kept, subject.everything, criterion),
    )


def _exchange(subject: Subject, host: Tensor, guest: Tensor, criterion: Criterion) -> Exchange:
    """The run of ``host`` (edge,) with the circuit's nodes of one site at a time as in the run of ``guest``."""
    taken = subject.recorded(guest, list(subject.nodes))
    values = {
        site: subject.measured(subject.patched(host, {site: exchanged(taken[site], channels)}))
        for site, channels in subject.nodes.items()
    }
    values = values or {"": subject.measured(subject.logits(host))}  # an empty circuit has nothing to exchange
    sites = {
        site: SiteScore(**rounded({name: each[name] for name in ("task_loss", "accuracy", "kl")}))
        for site, each in values.items()
    }
    return extended(Exchange, worst_of(list(values.values()), criterion), sites=sites)


def random_halves(subject: Subject, criterion: Criterion) -> Worst:
    """The circuit with random halves of all other edges ablated and the other halves in place.

    Parts that cancel out are missed by ablating everything at once; a half that holds one and not the other shows them.
    """
    values = []
    for seed in range(HALVES):
        draw = torch.rand(len(subject.kept), generator=torch.Generator().manual_seed(seed)) < 0.5
        values.append(subject.measured(subject.logits(subject.kept | draw)))
    return worst_of(values, criterion)


def relaxation(subject: Subject, criterion: Criterion) -> Relaxation:
    """The way from the circuit to the full model: all other edges opened together, a tenth at a time.

    Returns:
        ``task_loss`` and ``accuracy`` at each step, from closed to open, and the worst values.
    """
    values = []
    for step in range(STEPS + 1):
        shares = torch.where(subject.kept, 1.0, step / STEPS)
        values.append(subject.measured(subject.logits(shares)))
    loss, right = (tuple(round(each[name], DIGITS) for each in values) for name in ("task_loss", "accuracy"))
    return extended(Relaxation, worst_of(values, criterion), task_loss=loss, accuracy=right)


def other_norm(subject: Subject) -> OtherNorm | None:
    """The score with norms frozen at the full model's scale, or live where the circuit's own ablation freezes them.

    None where the model has no norms.
    """
    if subject.model.norm_kind == "none":
        return None
    ablation = subject.replacement.ablation
    other = replace(ablation, norm="live" if ablation.norm == "frozen" else "frozen")
    again = replace(subject, replacement=replace(subject.replacement, ablation=other))
    return extended(OtherNorm, score(again.logits(subject.kept), subject.examples, subject.full), norm=other.norm)
