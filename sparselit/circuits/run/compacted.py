"""The masked forward of a compacted model: reference, plus weight times (activation - reference) along kept edges.

What arrives at a site is what arrives in the reference, and for each kept edge its weight times how far its source is
from what stands in for it. Zero, mean and resample ablation differ in that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from sparselit.circuits.run.compaction import Compacted, left_out, sums
from sparselit.circuits.run.distinct import Distinct, distinct
from sparselit.circuits.run.masked import Context, contribution, instead, into, masked_logits
from sparselit.circuits.run.rows import Rows
from sparselit.data.examples import Examples
from sparselit.model.norm import Norm
from sparselit.model.sites import Edit
from sparselit.model.wiring import matrices


@dataclass(frozen=True)
class Known:
    """Some prompts under an ablation, as a compacted model needs to know them.

    Attributes:
        tokens: (batch, position).
        at: (batch,) the position whose logits are wanted; None for all.
        scales: the full model's norm scales, where norms are frozen, by site.
        sources: activations of the sources on the corrupted prompts, under resample, by site.
        arriving: what arrives at each target site on the corrupted prompts, under resample.
        streams: by norm, what it sees on the corrupted prompts, under resample.
        rests: by norm, sum and sum of squares of what it does not see.
        back: (example,) which of ``tokens`` stands for each prompt, where those that look the same are run once.
    """

    tokens: Tensor
    at: Tensor | None = None
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    sources: Mapping[str, Tensor] = field(default_factory=dict)
    arriving: Mapping[str, Rows] = field(default_factory=dict)
    streams: Mapping[str, Rows] = field(default_factory=dict)
    rests: Mapping[str, Rows] = field(default_factory=dict)
    back: Tensor | None = None


@torch.no_grad()
def known_of(small: Compacted, tokens: Tensor, at: Tensor | None, corrupted: Tensor | None) -> Known:
    """Run the full model as often as the ablation needs: once for frozen norms, once for resample ablation.

    Args:
        small: the compacted model.
        tokens: (batch, position).
        at: (batch,) the position whose logits are wanted; None for all.
        corrupted: (batch, position), the corrupted prompts, which resample ablation needs.
    """
    model, ablation = small.full, small.replacement.ablation
    scales: dict[str, Tensor] = {}
    if ablation.norm == "frozen":
        with model.sites.recorded([site for site in model.sites if site.endswith("scale")]) as scales:
            model(tokens, at)
    if ablation.kind != "resample":
        return Known(tokens, at, scales, arriving=small.arriving, rests=small.rests)
    if corrupted is None:
        raise ValueError("resampling needs the corrupted prompts")
    recorder = _Recorder(small)
    with recorder.attached():
        model(corrupted, at)
    return Known(
        tokens,
        at,
        scales,
        {**recorder.sources, "token": corrupted},
        recorder.arriving,
        recorder.streams,
        recorder.rests,
    )


def narrowed(known: Known, wide: Compacted, small: Compacted) -> Known:
    """What is known of some prompts, for a compacted model of fewer edges.

    Args:
        known: as the wider model needs it.
        wide: that model.
        small: one of a subset of its edges.
    """
    if small.replacement.ablation.kind != "resample":
        return replace(known, arriving=small.arriving, rests=small.rests)

    def places(site: str) -> Tensor:
        return _within(wide.at_site(site), small.at_site(site))

    sources = {
        site: x if site == "token" else Rows("example", x).channels(places(site)).table
        for site, x in known.sources.items()
        if site == "token" or site in small.model.sites
    }
    arriving = {site: rows.channels(places(site)) for site, rows in known.arriving.items()}
    streams, rests = {}, {}
    for name in small.norms:
        rows, seen = known.streams[name], small.seen(name)
        streams[name] = rows.channels(_within(wide.seen(name), seen))
        gone = left_out(rows.table.shape[-1], _within(wide.seen(name), seen))
        more, before = sums(rows.table, gone), known.rests.get(name)
        rests[name] = Rows("example", more if before is None else before.table + more)
    return replace(known, sources=sources, arriving=arriving, streams=streams, rests=rests)


def _within(wide: Tensor, small: Tensor) -> Tensor:
    """Where the channels ``small`` stand among ``wide``; -1 stays -1."""
    place = torch.full((int(wide.max()) + 2 if len(wide) else 1,), -1)
    place[wide[wide >= 0]] = (wide >= 0).nonzero()[:, 0]
    return torch.where(small >= 0, place[small.clamp(min=0)], -1)


class _Recorder:
    """What a run of the full model on the corrupted prompts leaves for a compacted model; wide tensors do not stay."""

    def __init__(self, small: Compacted) -> None:
        self.small = small
        self.sources: dict[str, Tensor] = {}
        self.arriving: dict[str, Rows] = {}
        self.streams: dict[str, Rows] = {}
        self.rests: dict[str, Rows] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Record while the block runs."""
        model = self.small.full
        bundles = matrices(model).values()
        after = {site: self._source(site) for site in {bundle.source for bundle in bundles} & set(model.sites)}
        before = {bundle.target: self._target(bundle.target) for bundle in bundles}
        with ExitStack() as stack:
            stack.enter_context(model.sites.edited(before=before, after=after))
            for name, small in self.small.norms.items():
                norm = model.norm if name == "unembed" else model.get_submodule(_module(name))
                if small.kind != "none":
                    handle = norm.register_forward_pre_hook(self._norm(name))
                    stack.callback(handle.remove)
            yield

    def _source(self, site: str) -> Edit:
        def record(x: Tensor) -> Tensor:
            self.sources[site] = Rows("example", _three(x)).channels(self.small.at_site(site)).table
            return x

        return record

    def _target(self, site: str) -> Edit:
        def record(x: Tensor) -> Tensor:
            sinusoid = self.small.full.embed.sinusoid if site == "embed" else None  # which the small model adds itself
            own = _three(x) if sinusoid is None else x - sinusoid[: x.shape[1]]
            self.arriving[site] = Rows("example", own).channels(self.small.at_site(site))
            return x

        return record

    def _norm(self, name: str) -> Callable[[Norm, tuple[Tensor]], None]:
        def record(_: Norm, inputs: tuple[Tensor]) -> None:
            x, seen = _three(inputs[0]), self.small.seen(name)
            self.streams[name] = Rows("example", x[..., seen.to(x.device)])
            self.rests[name] = Rows("example", sums(x, left_out(x.shape[-1], seen)))

        return record


def _three(x: Tensor) -> Tensor:
    """Positions that are the same for all prompts, as those of one prompt."""
    return x if x.ndim == 3 else x[None]


def _module(name: str) -> str:
    return name if name.endswith("position_norm") else f"{name}.norm"


def compacted_logits(
    small: Compacted, shares: Tensor, known: Known, resume: tuple[int, Tensor] | None = None
) -> Tensor:
    """Logits with the small model's edges outside of ``shares`` ablated; shapes as in :meth:`Transformer.forward`.

    Args:
        small: the compacted model.
        shares: (small edge,) boolean, or floats in [0, 1] that interpolate.
        known: :func:`known_of` the prompts.
        resume: where to begin, see :meth:`Transformer.forward`.
    """
    device = small.values.device
    shares = shares.to(device)
    if small.simple:
        masks = small.edges.masks(shares)
        context = Context(small.replacement, known.tokens, known.at, scales=known.scales)
        return _each(masked_logits(small.model, masks, context, resume, masks), known)
    weights = small.edges.masks(small.values * shares)
    replaced, before = dict(weights), {}
    if small.replacement.ablation.kind != "zero":
        for site, rows in _offsets(small, weights, known).items():
            name = None if site.rpartition(".")[0] in small.silent else _bias_of(site)
            if rows.per == "all" and name is not None:
                own = weights[name] if name in weights else small.model.get_parameter(name)
                replaced[name] = own + rows.table[0]
            else:
                before[site] = rows.adding(known.tokens, known.at)
    frozen = {site: instead(scale) for site, scale in known.scales.items()}
    with small.model.sites.edited(before=before, after=frozen), _telling(small, known):
        return _each(functional_call(small.model, replaced, (known.tokens, known.at, resume), tie_weights=False), known)


def _each(logits: Tensor, known: Known) -> Tensor:
    """The logits of every prompt."""
    return logits if known.back is None else logits[known.back]


def _bias_of(site: str) -> str:
    """The parameter to which a constant that arrives at a site can be added."""
    if site in ("embed", "positions"):
        return "embed.token.weight" if site == "embed" else "positions.weight"
    if site == "logits":
        return "unembed.bias"
    block, _, kind = site.rpartition(".")
    path = {"act": "up", "out": "down" if block.endswith("mlp") else "o"}.get(kind, kind)
    return f"{block}.{path}.bias"


def _offsets(small: Compacted, weights: Mapping[str, Tensor], known: Known) -> dict[str, Rows]:
    """What arrives at each target site when every edge is removed, less what the kept edges' removal would bring."""
    resample = small.replacement.ablation.kind == "resample"
    offsets: dict[str, Rows] = {}
    active = {site: rows for site, rows in known.arriving.items() if _is_run(small, site)}
    taken: dict[str, list[Rows]] = {}
    for name, weight in weights.items():
        bundle = small.edges.bundles[name]
        if resample:
            rows = contribution(weight, bundle, known.sources, known.at)
        else:
            per = small.replacement.ablation.per or "all"
            rows = Rows(per, into(small.means[name], weight, bundle))
        taken.setdefault(bundle.target, []).append(rows)
    for site, base in active.items():
        offset = base
        for rows in taken.get(site, []):
            if rows.per == offset.per:
                offset = Rows(offset.per, offset.table - rows.table)
            else:  # a table over positions against one over prompts and positions
                offset = Rows(offset.per, offset.table - rows.table[: offset.table.shape[1]])
        offsets[site] = offset
    return offsets


def _is_run(small: Compacted, site: str) -> bool:
    """Whether the small model calls a site: of a silent block only the one at which it writes."""
    block = site.rpartition(".")[0]
    return block not in small.silent or site.endswith(".out")


@contextmanager
def _telling(small: Compacted, known: Known) -> Iterator[None]:
    """Tell the norms what they do not see while a block runs."""
    try:
        for name, norm in small.norms.items():
            rows = known.rests.get(name)
            norm.left_out = None if rows is None else _left(rows, known)
        yield
    finally:
        for norm in small.norms.values():
            norm.left_out = None


def _left(rows: Rows, known: Known) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def told(x: Tensor) -> tuple[Tensor, Tensor]:
        total = rows.of(x, known.tokens, known.at)
        return total[..., :1], total[..., 1:]

    return told


def known_in(small: Compacted, known: Context) -> Known:
    """:func:`known_of` prompts of which the full model's context is known.

    Args:
        small: the compacted model.
        known: the context.
    """
    if small.replacement.ablation.kind != "resample":
        return Known(known.tokens, known.at, known.scales, arriving=small.arriving, rests=small.rests)
    live = replace(small.replacement.ablation, norm="live")  # the scales are known
    again = replace(small, replacement=replace(small.replacement, ablation=live))
    return replace(known_of(again, known.tokens, known.at, known.sources["token"]), scales=known.scales)


def kinds_of(small: Compacted, some: Examples) -> Distinct:
    """The prompts that differ to a compacted model; all of them where the ablation depends on the prompt.

    Args:
        small: the compacted model.
        some: the examples, whose answers are wanted.
    """
    ablation = small.replacement.ablation
    if ablation.kind == "resample" or ablation.norm == "frozen" or ablation.per == "token":
        return Distinct(some.tokens, some.length - 1, None)
    return distinct(some.tokens, some.length - 1, small.edges)


def known_kinds(small: Compacted, kinds: Distinct, part: slice = slice(None)) -> Known:
    """:func:`known_of` some of the :func:`kinds_of` prompts, where there are fewer of them than prompts."""
    back = kinds.back if part == slice(None) else None
    return Known(kinds.tokens[part], kinds.at[part], arriving=small.arriving, rests=small.rests, back=back)


def known_portion(small: Compacted, some: Examples) -> Known:
    """:func:`known_of` some examples, whose answers are wanted; those that look the same are run once."""
    kinds = kinds_of(small, some)
    if kinds.back is None:
        return known_of(small, some.tokens, some.length - 1, some.corrupted)
    return known_kinds(small, kinds)
