"""Faithfulness beyond the output: does a circuit compute what the full model computes, inside too?

Everything here runs the plain masked forward pass on the first report examples, so that discovery and ``verify`` do
the same. The published critique of pruned circuits (Drori 2026) names what each part looks for: nodes that change their
meaning, attention patterns that vanish, parts outside of the circuit that cancel out, norms that do the work.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
from sparselit.circuits.criterion import Criterion
from sparselit.circuits.evidence.scores import DIGITS, Told, rounded, score, silent, worst_of
from sparselit.circuits.run.ablation import Norm, real_rows
from sparselit.circuits.run.patch import taken
from sparselit.circuits.subnetwork import Observed, Subnetwork

#: Report examples on which activations are compared: the first ones.
EXAMPLES = 256
#: Random halves of the complement that are tried.
HALVES = 20
#: Steps of the complement's mask between closed and open.
STEPS = 10


def faithfulness(subject: Observed, criterion: Criterion, told: Told = silent) -> Faithfulness:
    """Every comparison of this module.

    Args:
        subject: the circuit, on some report examples.
        criterion: the stated bounds.
        told: called with what is being computed.
    """
    told("activations")
    return Faithfulness(
        split="report",
        n=len(subject.examples.answer),
        activations=activations(subject),
        attention=attention(subject),
        interchange=interchange(subject, criterion, told),
        random_halves=random_halves(subject, criterion, told),
        relaxation=relaxation(subject, criterion, told),
        other_norm=other_norm(subject),
    )


def activations(subject: Observed) -> dict[str, Unexplained]:
    """How far the circuit's own nodes carry in the circuit what they carry in the full model.

    Returns:
        By site, over the circuit's channels there and all positions of the prompts: ``unexplained``, the fraction of
        the full model's variance that the circuit's value leaves unexplained (0 is equal, 1 as good as the mean), and
        ``rescaled``, the same after the best scale and shift of each channel: what is left there is not a matter of
        size. Both are None where the full model's values do not vary.
    """
    mine, theirs = (run.recorded(list(subject.nodes)) for run in (subject, subject.whole))
    real = subject.examples.real
    found = {}
    for site, channels in subject.nodes.items():
        one, other = (real_rows(records[site], real)[:, channels].double() for records in (mine, theirs))
        found[site] = Unexplained(unexplained=fraction_unexplained(one, other), rescaled=_rescaled(one, other))
    return found


def fraction_unexplained(one: Tensor, other: Tensor) -> float | None:
    """Fraction of the variance of ``other`` (row, channel) that ``one`` leaves unexplained, pooled over channels.

    Args:
        one: values that explain (row, channel).
        other: values to be explained (row, channel).

    Returns:
        1 minus the coefficient of determination without a fit: squared differences, as a share of the squared
        deviations from each channel's mean. None where ``other`` does not vary.
    """
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


def attention(subject: Observed) -> dict[str, Attended]:
    """Total variation between a head's attention in the circuit and in the full model, for each head with a value.

    Returns:
        By head, as in ``layers.0.attn[1]``: ``total_variation``, the share of the attention that goes elsewhere, in
        [0, 1], mean over prompts and their positions, the sink counted as a position; and
        ``total_variation_max``, of the worst prompt.
    """
    width = subject.network.model.d_head
    heads = {
        site: sorted({channel // width for channel in channels})
        for site, channels in subject.nodes.items()
        if site.endswith(".attn.v")
    }
    sites = [site.removesuffix("v") + "pattern" for site in heads]
    mine, theirs = (run.recorded(sites) for run in (subject, subject.whole))
    real = subject.examples.real
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


def interchange(subject: Observed, criterion: Criterion, told: Told = silent) -> Interchange:
    """The circuit's nodes of one site exchanged between the two runs, in both directions.

    An interchange intervention (Geiger et al. 2021, §3) between the circuit and the full model on the same prompt
    instead of between two prompts: a node that means the same in both can be exchanged without harm.

    Args:
        subject: the circuit, on some report examples.
        criterion: the stated bounds.
        told: called with what is being computed.

    Returns:
        ``into_full``: the full model with the circuit's values; ``into_circuit``: the circuit with the full model's.
    """
    return Interchange(
        into_full=_exchange(subject, subject.whole, subject, criterion, told),
        into_circuit=_exchange(subject, subject, subject.whole, criterion, told),
    )


def _exchange(subject: Observed, host: Observed, guest: Observed, criterion: Criterion, told: Told) -> Exchange:
    """The run of ``host`` with the circuit's nodes of one site at a time as in the run of ``guest``."""
    other = guest.recorded(list(subject.nodes))
    values = {}
    for site, channels in subject.nodes.items():
        told("interchange")
        values[site] = subject.measured(host.patched({site: taken(other[site], channels)}))
    values = values or {"": subject.measured(host.logits())}  # an empty circuit has nothing to exchange
    sites = {
        site: SiteScore(**rounded({name: each[name] for name in ("task_loss", "accuracy", "kl")}))
        for site, each in values.items()
    }
    return extended(Exchange, worst_of(list(values.values()), criterion), sites=sites)


def random_halves(subject: Observed, criterion: Criterion, told: Told = silent) -> Worst:
    """The circuit with random halves of all other edges ablated and the other halves in place.

    Parts that cancel out are missed by ablating everything at once; a half that holds one and not the other shows them.

    Args:
        subject: the circuit, on some report examples.
        criterion: the stated bounds.
        told: called with what is being computed.

    Returns:
        The worst values over all halves, and how many halves meet the criterion.
    """
    values = []
    for seed in range(HALVES):
        told("random halves")
        draw = torch.rand(len(subject.kept), generator=torch.Generator().manual_seed(seed)) < 0.5
        values.append(subject.measured(subject.keeping(subject.kept | draw).logits()))
    return worst_of(values, criterion)


def relaxation(subject: Observed, criterion: Criterion, told: Told = silent) -> Relaxation:
    """The way from the circuit to the full model: all other edges opened together, a tenth at a time.

    Args:
        subject: the circuit, on some report examples.
        criterion: the stated bounds.
        told: called with what is being computed.

    Returns:
        ``task_loss`` and ``accuracy`` at each step, from closed to open, and the worst values.
    """
    values = []
    for step in range(STEPS + 1):
        told("relaxation")
        shares = torch.where(subject.kept, 1.0, step / STEPS)
        run = {0: subject, STEPS: subject.whole}.get(step) or subject.keeping(shares)
        values.append(subject.measured(subject.full if run is subject.whole else run.logits()))
    loss, right = (tuple(round(each[name], DIGITS) for each in values) for name in ("task_loss", "accuracy"))
    return extended(Relaxation, worst_of(values, criterion), task_loss=loss, accuracy=right)


def other_norm(subject: Observed) -> OtherNorm | None:
    """The score with norms frozen at the full model's scale, or live where the circuit's own ablation freezes them.

    None where the model has no norms.
    """
    network = subject.network
    if network.model.norm_kind == "none":
        return None
    other: Norm = "live" if network.ablation.norm == "frozen" else "frozen"
    again = Subnetwork(network.engine.with_norm(other), network.kept)
    return extended(OtherNorm, score(again.logits(subject.examples), subject.examples, subject.full), norm=other)
