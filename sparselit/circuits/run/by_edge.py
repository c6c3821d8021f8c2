"""The full model edge by edge: most of the edges of a large sparse model, multiplied one by one instead of by matrix.

Where hardly any entry of a matrix is an edge, a product that visits the edges only is several times faster. Activations
are laid out channel by channel, so that an edge is one multiply-add of two rows, and few prompts are run at a time, so
that they stay in the processor's cache. The forward pass is the model's own, with other linear maps in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.masked import Context, instead, into
from sparselit.circuits.run.naive import Ran
from sparselit.circuits.run.patch import Patch, patched
from sparselit.circuits.run.rows import Rows
from sparselit.model.sites import Edit
from sparselit.model.transformer import Attention, Transformer
from sparselit.model.wiring import Edges

#: Entries of the layers' matrices from which on it is faster, and largest share of edges among them
#: (``docs/results/scale.md``).
SMALLEST, DENSEST = 2**20, 0.05
#: Positions that are run at a time.
POSITIONS = 1024


class _EdgeProduct(nn.Module):
    """Stands for a linear map; it multiplies by the edges that it was last given."""

    def __init__(self) -> None:
        super().__init__()
        self.column = self.begin = self.values = torch.zeros(0)
        self.constant: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., input channel) to (..., output channel)."""
        rows = x.reshape(-1, x.shape[-1]).t().contiguous()  # (input channel, position); no copy as activations are laid
        y = F.embedding_bag(self.column, rows, self.begin, mode="sum", per_sample_weights=self.values)
        if self.constant is not None:
            y += self.constant[:, None]
        return y.t().reshape(*x.shape[:-1], len(self.begin))


class _ByHead(Attention):
    """The same attention, one head after the other, of activations that are laid out channel by channel."""

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        if self._pattern.attached:
            return super()._mix(q, k, v, allowed)
        (n, heads, queries, width), keys = q.shape, k.shape[2]
        bias = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill_(~allowed, -math.inf)
        bias = (bias[:, 0] if bias.ndim == 4 else bias).expand(n, queries, keys)
        z = q.new_empty(heads, width, n, queries)
        for head in range(heads):
            scores = torch.baddbmm(bias, q[:, head], k[:, head].transpose(1, 2), alpha=1 / math.sqrt(self.d_head))
            if self.sink is None:
                pattern = scores.softmax(-1)
            else:
                sink = self.sink[head].expand(n, queries, 1)
                pattern = torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]
            z[head] = torch.bmm(v[:, head].transpose(1, 2), pattern.transpose(1, 2)).transpose(0, 1)
        return z.permute(2, 0, 3, 1)  # (batch, head, query, channel)

    def _join(self, z: Tensor) -> Tensor:
        return z.transpose(1, 2).flatten(2)


class EdgeModel:
    """A model whose layers multiply edge by edge; see :func:`worth_it`.

    Args:
        model: the full model; it is not changed, and its tensors are shared.
        edges: its edges, and its biases where the ablation can remove them.
        replacement: what a removed edge contributes; not under resample ablation.
    """

    def __init__(self, model: Transformer, edges: Edges, replacement: Replacement) -> None:
        self.edges, self.replacement = edges, replacement
        self.twin = _twin(model)
        self.products: dict[str, _EdgeProduct] = {}  # by matrix
        self._own: dict[str, Tensor] = {}  # the biases that belong to them
        for name, bundle in edges.bundles.items():
            if name.startswith("layers.") and not bundle.is_bias:
                path = name.removesuffix(".weight")
                block, _, letter = path.rpartition(".")
                product = self.products[name] = _EdgeProduct()
                bias = getattr(self.twin.get_submodule(path), "bias", None)
                if bias is not None:
                    self._own[name] = bias.detach()
                setattr(self.twin.get_submodule(block), letter, product)
        parameters = [model.get_parameter(name).detach() for name in edges.names]
        self._values = torch.cat([p.reshape(-1) for p in parameters])[edges.places_when_flat]
        self._means = {name: means for name, means in replacement.means.items() if name in edges.bundles}
        self._column = edges.column.int()
        self._last: tuple[Tensor, tuple[dict[str, Tensor], dict[str, Rows]]] | None = None  # what was given last

    @torch.no_grad()
    def run(
        self,
        shares: Tensor,
        known: Context,
        resume: tuple[int, Tensor] | None = None,
        record: Sequence[str] = (),
        patches: Mapping[str, Patch] | None = None,
    ) -> Ran:
        """Answer logits with only some edges, and activations of the same run.

        Args:
            shares: boolean (edge,), or floats in [0, 1] that interpolate.
            known: the prompts, and the norms' scales where they are frozen.
            resume: where to begin, see :meth:`Transformer.forward`.
            record: sites whose activations are wanted.
            patches: by site, values that channels have instead of their own.
        """
        replaced, before = self._given(shares)
        n, length = known.tokens.shape
        size = max(1, POSITIONS // length)
        parts = [slice(i, i + size) for i in range(0, n, size)]
        found: list[Tensor] = []
        records: dict[str, list[Tensor]] = {site: [] for site in record}
        for part in parts:
            tokens, at = known.tokens[part], None if known.at is None else known.at[part]
            after: dict[str, Edit] = {"embed": _by_channel}
            after |= {site: instead(_of(scale, part, n)) for site, scale in known.scales.items()}
            patching = {site: patched(patch.of(part)) for site, patch in (patches or {}).items()}
            adding = {site: rows.adding(tokens, at) for site, rows in before.items()}
            begin = None if resume is None else (resume[0], _by_channel(resume[1][part]))
            with ExitStack() as stack:
                stack.enter_context(self.twin.sites.edited(after=patching))
                found_here = stack.enter_context(self.twin.sites.recorded(record))
                stack.enter_context(self.twin.sites.edited(after=after, before=adding))
                found.append(functional_call(self.twin, replaced, (tokens, at, begin), tie_weights=False))
            for site, x in found_here.items():
                records[site].append(x)
        whole = {site: xs[0] if xs[0].ndim == 2 else torch.cat(xs) for site, xs in records.items() if xs}
        return Ran(torch.cat(found), whole)

    def _given(self, shares: Tensor) -> tuple[dict[str, Tensor], dict[str, Rows]]:
        """Give the products their edges; what takes the place of other tensors, and what is added at sites."""
        if self._last is not None and self._last[0].dtype == shares.dtype and torch.equal(self._last[0], shares):
            return self._last[1]
        edges, values = self.edges, self._values
        soft = shares.dtype.is_floating_point
        now = values * shares if soft else values
        kept = shares != 0 if soft else shares
        replaced: dict[str, Tensor] = {}
        constants = dict(self._own)
        for number, here in enumerate(edges.members):
            name, shape = edges.names[number], edges.shapes[edges.names[number]]
            chosen = here[kept[here]]
            product = self.products.get(name)
            if product is not None:
                counts = torch.bincount(edges.row[chosen], minlength=shape[0])
                product.begin, product.column = counts.cumsum(0) - counts, self._column[chosen]
                product.begin, product.values = product.begin.int(), now[chosen]
                continue
            dense = now.new_zeros(shape)
            places = (edges.row[chosen], edges.column[chosen])[: len(shape)]
            dense[places] = now[chosen]
            matrix = name.removesuffix("bias") + "weight"
            if matrix in self.products:
                constants[matrix] = dense
            else:
                replaced[name] = dense
        before: dict[str, Rows] = {}
        if self.replacement.ablation.kind != "zero":
            per = self.replacement.ablation.per or "all"
            removed = values - now if soft else values * ~shares
            for number, here in enumerate(edges.members):
                name = edges.names[number]
                gone = here[removed[here] != 0]
                if not len(gone):
                    continue
                rows = Rows(per, self._brought(name, gone, removed[gone]))
                site = edges.bundles[name].target
                if per == "all" and name in self.products:
                    own = constants.get(name)
                    constants[name] = rows.table[0] if own is None else own + rows.table[0]
                else:
                    before[site] = Rows(per, before[site].table + rows.table) if site in before else rows
        for name, product in self.products.items():
            product.constant = constants.get(name)
        self._last = shares.clone(), (replaced, before)
        return replaced, before

    def _brought(self, name: str, gone: Tensor, removed: Tensor) -> Tensor:
        """What removed edges of one matrix contribute (group, target channel)."""
        bundle, shape, means = self.edges.bundles[name], self.edges.shapes[name], self._means[name]
        ends = (self.edges.row[gone], self.edges.column[gone])
        if len(means) == 1:
            target, source = ends if bundle.target_axis == 0 else ends[::-1]
            total = removed.new_zeros(shape[bundle.target_axis])
            return total.index_add_(0, target, removed * means[0, source])[None]
        weight = removed.new_zeros(shape)
        weight[ends] = removed
        return into(means, weight, bundle)


def worth_it(model: Transformer, edges: Edges, replacement: Replacement) -> bool:
    """Whether running the model edge by edge is faster; by its size alone, so that a run can be repeated.

    On the CPU, where the layers are large and sparse, and neither AbsTopK, which sorts channels, nor resample ablation,
    which multiplies each removed edge for each prompt, takes the time.

    Args:
        model: the full model.
        edges: its edges.
        replacement: what a removed edge contributes.
    """
    within = [
        (model.get_parameter(name).numel(), len(here))
        for name, here in zip(edges.names, edges.members, strict=True)
        if name.startswith("layers.") and not edges.bundles[name].is_bias
    ]
    entries, alive = (sum(counts) for counts in zip(*within, strict=True)) if within else (0, 0)
    weight = model.embed.token.weight
    return (
        entries >= SMALLEST
        and alive <= DENSEST * entries
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.float64)
        and replacement.ablation.kind != "resample"
        and all(site.keep is None for site in model.sites.values())
    )


def _twin(model: Transformer) -> Transformer:
    """A transformer of its own sites that shares all tensors."""
    with torch.device("meta"):
        twin = Transformer(**model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    for layer in twin.layers:
        layer.attn.__class__ = _ByHead
    twin.sinusoid, twin.embed.sinusoid = model.sinusoid, model.embed.sinusoid
    return twin.eval()


def _by_channel(x: Tensor) -> Tensor:
    """The same activation (example, position, channel), laid out channel by channel."""
    return x.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def _of(x: Tensor, part: slice, n: int) -> Tensor:
    """The part of an activation that belongs to some examples; concatenated positions are the same for all."""
    return x[part] if x.ndim == 3 and len(x) == n else x
