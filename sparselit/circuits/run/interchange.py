"""Interchange: what a node carries, shown by giving it the value that it has on the corrupted prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.run.patch import patched, taken
from sparselit.data.examples import Examples


@torch.no_grad()
def flip_rate(engine: NaiveEngine, kept: Tensor, examples: Examples, nodes: Mapping[str, Sequence[int]]) -> float:
    """Share of examples answered by the competing answer when ``nodes`` take their values from the corrupted prompt.

    An interchange intervention (Geiger et al. 2021, §3): everything else keeps the value that it has on the prompt. A
    node that carries the whole deciding information flips every answer; one that carries none flips nothing.

    Args:
        engine: the model and the ablation.
        kept: boolean (edge,), the circuit, or all edges for the full model.
        examples: prompts with corrupted ones of the same length.
        nodes: channels by site.

    Returns:
        A share in [0, 1].
    """
    at, sites = examples.length - 1, engine.model.sites
    with sites.recorded(nodes) as corrupted:
        engine.run(kept, examples.corrupted, at, examples.tokens)
    edits = {site: patched(taken(corrupted[site], channels)) for site, channels in nodes.items()}
    with sites.edited(after=edits):
        logits = engine.run(kept, examples.tokens, at, examples.corrupted)
    return float((logits.argmax(-1) == examples.wrong).float().mean())
