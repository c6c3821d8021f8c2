"""Prompts and what the circuit does on them, as a page's data: values of nodes, attention, edges on one prompt.

Values are those of the circuit run alone, by the naive path. Arrays are shipped as whole numbers times one scale for
each node, deflated, in base64; the page says how exact they are.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.graph import NodeKey
from sparselit.circuits.use.on_prompts import Series, Stored, choose, heads_of, series_of, values_on
from sparselit.report.facts import visible

STORED = 64  # prompts, corrupted ones included
POOL, PORTION = 1024, 256  # report prompts that are looked at for extremes; how many at once
EXTREMES = 3  # prompts at each end, and as many drawn
_FINE, _LARGEST = 600_000, 1_500_000  # values up to which two bytes are spent on one; values shipped at most
_ATTENTION_LARGEST, _LOOKED_LARGEST = 600_000, 25_000_000
_EXACT = 400  # edges up to which each is removed on every prompt


def prompt_data(circuit: Loaded, nodes: Sequence[NodeKey]) -> dict[str, Any]:
    """Everything of a page that needs the model to run.

    Args:
        circuit: the sub-network with its prompts.
        nodes: of the graph, in its order.
    """
    series = series_of(circuit, nodes)
    looked = _Look(circuit, series)
    pool = looked.pool
    room = max(2, min(STORED, _LARGEST // max(1, len(series) * pool.tokens.shape[1])))
    stored = choose(pool, looked.margin, room)
    values, patterns, margin = values_on(circuit, stored.examples, series, heads_of(circuit))
    length = stored.examples.length
    heads = sorted(patterns)
    bits = 16 if values.size <= _FINE else 8
    codes, scales = quantised(values, bits)
    kept = _fitting(length, len(heads))
    exact = len(circuit.circuit.places) <= _EXACT
    return {
        "vocabulary": [visible(word) for word in circuit.circuit.task.vocabulary],
        "prompts": [_prompt(circuit, stored, i, float(margin[i])) for i in range(len(length))],
        "n": len(circuit.behaviour.splits["report"].answer),
        "pool": len(pool.answer),
        "series": [list(key) for key in series],
        "positions": values.shape[2],
        "values": {"bits": bits, "scale": scales, "data": packed(codes)},
        "heads": [list(head) for head in heads],
        "attention": {"prompts": kept, "data": packed(_attention(patterns, heads, length, kept))},
        "extremes": looked.data(series),
        "removed": _removed(circuit, stored, margin) if exact else None,
        "constants": _constants(circuit),
    }


class _Look:
    """The report prompts of the pool: on which of them each series is largest, smallest, and on some that were drawn.

    Args:
        circuit: the sub-network.
        series: rows of values.
    """

    def __init__(self, circuit: Loaded, series: Sequence[Series]) -> None:
        report = circuit.behaviour.splits["report"]
        most = max(PORTION, _LOOKED_LARGEST // max(1, len(series) * report.tokens.shape[1]))
        pool = self.pool = report.select(slice(0, min(POOL, most)))
        margins = []
        n, count = len(pool.answer), len(series)
        take = min(EXTREMES, n)
        self.top, self.bottom = np.zeros((count, 0), dtype=np.int64), np.zeros((count, 0), dtype=np.int64)
        tops, bottoms = np.zeros((count, 0), dtype=np.float32), np.zeros((count, 0), dtype=np.float32)
        drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:take].sort().values.numpy()
        active = np.zeros(count)
        answers = pool.answer.cpu().numpy()
        sums = {int(answer): np.zeros(count) for answer in np.unique(answers)}
        positions = int(pool.length.sum())
        every: list[NDArray[np.float32]] = []
        for begin in range(0, n, PORTION):
            part = pool.select(slice(begin, begin + PORTION))
            values, _, margin = values_on(circuit, part, series, [])
            margins.append(margin)
            every.append(values)
            active += (values != 0).sum((1, 2))
            at = (part.length - 1).cpu().numpy()
            last = values[:, np.arange(len(at)), at]
            for answer in np.unique(answers[begin : begin + PORTION]):
                sums[int(answer)] += last[:, answers[begin : begin + PORTION] == answer].sum(1)
            number = np.broadcast_to(np.arange(begin, begin + len(at)), (count, len(at)))
            real = part.real.cpu().numpy()
            high = np.where(real, values, -np.inf).max(2, initial=-np.inf)
            low = np.where(real, values, np.inf).min(2, initial=np.inf)
            tops, self.top = _largest(np.hstack([tops, high]), np.hstack([self.top, number]), take)
            lows, self.bottom = _largest(np.hstack([-bottoms, -low]), np.hstack([self.bottom, number]), take)
            bottoms = -lows
        self.margin = torch.cat(margins)
        self.drawn = np.broadcast_to(drawn, (count, len(drawn)))
        self.active = active / max(1, positions)
        self.means = {a: s / max(1, int((answers == a).sum())) for a, s in sums.items()}
        self.values = np.concatenate(every, axis=1) if every else np.zeros((count, 0, 0), dtype=np.float32)

    def data(self, series: Sequence[Series]) -> dict[str, Any]:
        """Prompts and values by series: the largest first, then the smallest, then those drawn."""
        chosen = np.hstack([self.top, self.bottom, self.drawn])
        used, place = np.unique(chosen, return_inverse=True)
        values = np.take_along_axis(self.values, chosen[..., None], axis=1).astype(np.float32)
        codes, scales = quantised(values, 8)
        answers = sorted(self.means)
        means = []
        for i in range(len(series)):
            ordered = sorted(answers, key=lambda a: (-self.means[a][i], a))
            ends = dict.fromkeys([*ordered[:3], *ordered[3:][-3:]])
            means.append([[answer, _short(self.means[answer][i])] for answer in ends])
        lengths = self.pool.length.cpu().numpy()[used]
        tokens = self.pool.tokens.cpu().numpy()[used]
        return {
            "each": self.top.shape[1],
            "drawn": self.drawn.shape[1],
            "chosen": packed(place.reshape(chosen.shape).astype("<u2")),
            "scale": scales,
            "data": packed(codes),
            "tokens": packed(tokens.astype("<u2")),
            "length": lengths.tolist(),
            "answer": self.pool.answer.cpu().numpy()[used].tolist(),
            "active": [round(float(share), 4) for share in self.active],
            "means": means,
        }


def _largest(
    values: NDArray[np.float32], numbers: NDArray[np.int64], take: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``take`` largest of each row, ties by the earlier prompt."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :take]
    return np.take_along_axis(values, order, 1), np.take_along_axis(numbers, order, 1)


def quantised(values: NDArray[np.float32], bits: int) -> tuple[NDArray[Any], list[float]]:
    """Whole numbers and, for each entry of the first axis, the scale that they are to be multiplied by."""
    limit = 2 ** (bits - 1) - 1
    most = np.abs(values).reshape(len(values), -1).max(1, initial=0.0)
    scale = np.where(most > 0, most / limit, 1.0).astype(np.float32)
    codes = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1)))
    return codes.astype("<i2" if bits == 16 else "i1"), [float(f"{s:.6g}") for s in scale]


def packed(array: NDArray[Any]) -> str:
    """The bytes of an array, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _fitting(length: Tensor, heads: int) -> int:
    """How many of the first prompts' attention is shipped."""
    room, count = _ATTENTION_LARGEST, 0
    for n in length.tolist():
        room -= heads * n * (n + 1) // 2
        if room < 0:
            break
        count += 1
    return count if heads else 0


def _attention(
    patterns: dict[tuple[int, int], NDArray[np.float32]], heads: Sequence[tuple[int, int]], length: Tensor, kept: int
) -> NDArray[np.uint8]:
    """By prompt, head and query: the shares of the keys up to the query, in 255ths."""

    def rows() -> Iterator[NDArray[np.uint8]]:
        for i, n in enumerate(length.tolist()[:kept]):
            for head in heads:
                for query in range(n):
                    yield np.rint(patterns[head][i, query, : query + 1] * 255).astype(np.uint8)

    found = list(rows())
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint8)


def _removed(circuit: Loaded, stored: Stored, margin: Tensor) -> dict[str, Any]:
    """By edge or bias, then prompt: the margin without it alone minus the margin with it."""
    examples = stored.examples
    numbers = circuit.edges.numbers(circuit.circuit.places)
    found = np.zeros((len(numbers), len(margin)), dtype=np.float32)
    rows = torch.arange(len(margin))
    for i, number in enumerate(numbers.tolist()):
        kept = circuit.kept.clone()
        kept[number] = False
        logits = circuit.keeping(kept).logits(examples).cpu()
        without = logits[rows, examples.answer.cpu()] - logits[rows, examples.wrong.cpu()]
        found[i] = (without - margin).numpy()
    codes, scales = quantised(found, 8)
    return {"scale": scales, "data": packed(codes)}


def _constants(circuit: Loaded) -> dict[str, str]:
    """What the page has to say of values that are no products of weights."""
    config = circuit.circuit.model.config
    return {"norm": str(config.get("norm", "rms")), "ablation": str(circuit.ablation)}


def _prompt(circuit: Loaded, stored: Stored, i: int, margin: float) -> dict[str, Any]:
    examples = stored.examples
    n = int(examples.length[i])
    strata = circuit.circuit.task.strata
    kind = int(examples.stratum[i])
    return {
        "tokens": examples.tokens[i, :n].tolist(),
        "answer": int(examples.answer[i]),
        "wrong": int(examples.wrong[i]),
        "kind": visible(strata[kind]) if kind < len(strata) else "",
        "margin": _short(margin),
        "partner": stored.partner[i],
        "origin": stored.origin[i],
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
