"""The attribution graph of one prompt, in the format that Neuronpedia's pages read (schema 1.0.0 and its front end).

A circuit of weights stands at no position. On a prompt each node has a value at each position, and an edge carries
``weight x value of its source`` to its target there; an edge of values carries that along the attention, from each
position that a head attends to. Contributions are before the norm of the block that reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.loaded import Loaded, load
from sparselit.circuits.use.graph import NodeKey, graph_of
from sparselit.errors import SparselitError
from sparselit.interop.export.network import residual_pairs
from sparselit.model.site_table import site

#: Contributions smaller than this share of the largest are left out.
_LEAST = 1e-3
#: Bytes below which the page refuses a file.
_SMALLEST = 1024


@torch.no_grad()
def attribution_graph(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """The graph as JSON.

    Raises:
        SparselitError: the prompt is none of the report split's.
    """
    loaded = load(path)
    example, words = _example(loaded, prompt)
    last = int(example.length[0]) - 1
    names = sorted({f"layers.{i}.attn.pattern" for i in range(len(loaded.model.layers))})
    graph = graph_of(circuit)
    wanted = {node.site for node in graph.nodes if site(node.site).block != "input"} - {"logits"}
    with loaded.model.sites.recorded([*names, *sorted(wanted)]) as records:
        logits = loaded.naive.run(example.tokens, None, example.corrupted)[0, last]
    values = {name: records[name][0] for name in wanted}
    rows: list[tuple[tuple[NodeKey, int], tuple[NodeKey, int], float]] = []
    tokens = example.tokens[0].tolist()
    for link in graph.edges:
        source, target = graph.keys(link)
        for before, after, share in _positions(records, loaded, link.parameter, source, last):
            if target.site == "logits" and after != last:
                continue
            if source.site == "token":
                value = float(tokens[before] == source.channel)
            elif source.site == "position":
                value = float(before == source.channel)
            else:
                value = float(values[source.site][before, source.channel])
            rows.append(((source, before), (target, after), link.weight * value * share))
    for source, target in residual_pairs(graph):
        if source.site in values:
            rows += [((source, t), (target, t), float(values[source.site][t, source.channel])) for t in range(last + 1)]
    return _written(circuit, graph_of(circuit).by_key, rows, words[: last + 1], logits, tokens)


def _positions(
    records: Any, loaded: Loaded, parameter: str, source: NodeKey, last: int
) -> Iterator[tuple[int, int, float]]:
    """From which position an edge acts on which, and by what share: attention weights for a head's output."""
    if not parameter.endswith(".attn.o.weight"):
        yield from ((t, t, 1.0) for t in range(last + 1))
        return
    pattern = records[site(source.site).beside("pattern")][0, source.channel // loaded.model.d_head]
    for after in range(last + 1):
        yield from ((before, after, float(pattern[after, before])) for before in range(after + 1))


def _example(loaded: Loaded, prompt: str | None) -> tuple[Any, list[str]]:
    """A prompt of the report split, as examples of which there is one, and its tokens."""
    report, vocabulary = loaded.behaviour.splits["report"], loaded.behaviour.vocabulary
    for number in range(len(report.answer)):
        words = [vocabulary[token] for token in report.tokens[number, : int(report.length[number])].tolist()]
        if prompt is None or "".join(words) == prompt:
            return report.select(slice(number, number + 1)), words
    raise SparselitError(f"no prompt of the report split reads {prompt!r}")


def _written(
    circuit: Circuit, known: Any, rows: Sequence[Any], words: list[str], logits: Tensor, tokens: list[int]
) -> str:
    largest = max((abs(weight) for *_, weight in rows), default=0.0)
    rows = [row for row in rows if abs(row[2]) >= max(_LEAST * largest, 1e-12)]
    order = sorted({site(key.site).order for row in rows for key, _ in row[:2] if site(key.site).block != "input"})
    layers = {
        place: number for number, place in enumerate(order, start=1)
    }  # a graph whose largest layer is 0 is refused
    share = logits.softmax(-1)
    nodes: dict[str, dict[str, Any]] = {}

    def named(key: NodeKey, position: int) -> str:
        layer = "E" if site(key.site).block == "input" else str(layers[site(key.site).order])
        feature = len(circuit.task.vocabulary) + key.channel if key.site == "position" else key.channel
        name = f"{layer}_{feature}_{position}"
        label, kind = f"{key.site} {known[key].text}", f"{known[key].block} {known[key].kind}"
        if key.site == "logits":
            label, kind = f"Output {known[key].text} (p={float(share[key.channel]):.3f})", "logit"
        elif layer == "E":
            label, kind = words[position], "embedding"
        nodes[name] = {
            "node_id": name,
            "feature": feature,
            "layer": layer,
            "ctx_idx": position,
            "feature_type": kind,
            "jsNodeId": f"{layer}_{feature}-{position}",
            "clerp": label,
        }
        return name

    links = [{"source": named(*source), "target": named(*target), "weight": weight} for source, target, weight in rows]
    slug = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"{circuit.task.name}-{circuit.model.hash[:8]}")
    content = {
        "metadata": {
            "slug": slug,
            "scan": f"sparselit-{slug}",
            "prompt_tokens": words,
            "prompt": "".join(words),
            "info": {"creator_name": "sparselit", "ablation": str(circuit.ablation), "edges": circuit.size.edges},
        },
        "qParams": {},
        "nodes": list(nodes.values()),
        "links": links,
    }
    return json.dumps(content, indent=1, allow_nan=False).ljust(_SMALLEST) + "\n"
