"""What a circuit does on some prompts: values of nodes at every position, attention, and which prompts to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.graph import NodeKey
from sparselit.data.examples import Examples
from sparselit.model.site_table import Shape, site

Series = tuple[str, int]  # site and channel of a row of values


@dataclass(frozen=True)
class Stored:
    """The prompts of a page.

    Attributes:
        examples: prompts and corrupted prompts, each once.
        partner: of each, where its corrupted prompt stands; itself where it has none.
        origin: of each, its number in the report split; -1 for a corrupted prompt that is not in the pool.
    """

    examples: Examples
    partner: tuple[int, ...]
    origin: tuple[int, ...]


def series_of(circuit: Loaded, nodes: Sequence[NodeKey]) -> list[Series]:
    """Nodes that are activations, the mixed values of heads, and all queries and keys of heads that have any."""
    shape = Shape.of(circuit.circuit.model.config)
    found: dict[Series, None] = {}
    for node in nodes:
        if site(node.site).block == "input":
            continue
        found[node.site, node.channel] = None
        if node.site.endswith(".attn.v"):
            found[site(node.site).beside("z"), node.channel] = None
        if node.site.endswith((".attn.q", ".attn.k")):
            first = node.channel // shape.d_head * shape.d_head
            for channel in range(first, first + shape.d_head):
                found[site(node.site).beside("q"), channel] = None
                found[site(node.site).beside("k"), channel] = None
    return sorted(found, key=lambda key: (site(key[0]).order, key[1]))


def heads_of(circuit: Loaded) -> list[tuple[int, int]]:
    """Layer and number of the heads that have a query, a key or a value in the circuit."""
    shape = Shape.of(circuit.circuit.model.config)
    return sorted(
        {
            (site(name).layer or 0, channel // shape.d_head)
            for name, channels in circuit.circuit.nodes.items()
            if site(name).axis == "head"
            for channel in channels
        }
    )


@torch.no_grad()
def values_on(
    circuit: Loaded, part: Examples, series: Sequence[Series], heads: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float32], dict[tuple[int, int], NDArray[np.float32]], Tensor]:
    """What the circuit alone does on some prompts.

    Args:
        circuit: the sub-network.
        part: prompts, few enough for one forward pass.
        series: sites and channels whose values are wanted.
        heads: layer and number of the heads whose attention is wanted.

    Returns:
        Values (series, example, position), zero beyond a prompt's end; attention (example, query, key) by head; and the
        margin (example,) of the right answer's logit over the wrong one's.
    """
    by_site: dict[str, list[int]] = {}
    for name, channel in series:
        by_site.setdefault(name, []).append(channel)
    patterns = sorted({f"layers.{layer}.attn.pattern" for layer, _ in heads})
    naive = circuit.naive
    with circuit.model.sites.recorded([*by_site, *patterns]) as records:
        logits = naive.run(part.tokens, None, part.corrupted)
    rows = torch.arange(len(part.answer), device=logits.device)
    last = logits[rows, part.length - 1]
    margin = (last[rows, part.answer] - last[rows, part.wrong]).cpu()
    blank = ~part.real.cpu()
    taken = []
    for name, channels in by_site.items():
        value = records[name].expand(*part.tokens.shape, -1)[..., channels].float().cpu()
        taken.append(value.masked_fill(blank[..., None], 0.0).permute(2, 0, 1))
    values = torch.cat(taken).numpy() if taken else np.zeros((0, *part.tokens.shape), dtype=np.float32)
    attention = {
        (layer, head): records[f"layers.{layer}.attn.pattern"]
        .expand(len(rows), -1, -1, -1)[:, head]
        .float()
        .cpu()
        .numpy()
        for layer, head in heads
    }
    return values, attention, margin


def choose(pool: Examples, margin: Tensor, room: int) -> Stored:
    """The prompts that are shipped: the hardest, then the first of each kind in turn, each with its corrupted prompt.

    Args:
        pool: prompts.
        margin: (prompt,) of the right answer over the wrong one.
        room: how many fit.
    """
    hardest = torch.argsort(margin, stable=True).tolist()[: max(1, room // 8)]
    by_kind: dict[int, list[int]] = {}
    for i, kind in enumerate(pool.stratum.tolist()):
        by_kind.setdefault(kind, []).append(i)
    turns = [kinds[i] for i in range(len(pool.answer)) for kinds in by_kind.values() if i < len(kinds)]
    tokens, lengths = pool.tokens.tolist(), pool.length.tolist()
    known = {(tuple(t[:n])): i for i, (t, n) in reversed(list(enumerate(zip(tokens, lengths, strict=True))))}
    rows: dict[tuple[int, ...], int] = {}
    picked: list[tuple[int, bool]] = []  # number in the pool, whether its corrupted prompt is meant
    partner: dict[int, int] = {}

    def add(key: tuple[int, ...], number: int, corrupted: bool) -> int:
        if key not in rows:
            rows[key] = len(picked)
            picked.append((number, corrupted))
        return rows[key]

    for number in [*hardest, *turns]:
        n = lengths[number]
        one, other = tuple(tokens[number][:n]), tuple(pool.corrupted[number, :n].tolist())
        new = (one not in rows) + (other not in rows and other != one)
        if len(picked) + new > room:
            continue
        first, second = add(one, number, False), add(other, number, True)
        partner.setdefault(first, second)
        partner.setdefault(second, first)
    parts = [_one(pool, number, corrupted) for number, corrupted in picked]
    origin = [known.get(key, -1) for key in rows]
    examples = Examples(*(torch.stack(field) for field in zip(*parts, strict=True)))
    return Stored(examples, tuple(partner[i] for i in range(len(picked))), tuple(origin))


def _one(pool: Examples, number: int, corrupted: bool) -> Examples:
    one = Examples(*(field[number] for field in pool))
    if not corrupted or bool((one.tokens == one.corrupted).all()):
        return one
    return one._replace(tokens=one.corrupted, corrupted=one.tokens, answer=one.wrong, wrong=one.answer)
