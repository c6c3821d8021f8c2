"""Interchange: what a node carries, shown by giving it the value that it has on the corrupted prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.masked import masked_logits
from sparselit.data.examples import Examples
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer


@torch.no_grad()
def flip_rate(
    model: Transformer,
    masks: Mapping[str, Tensor],
    replacement: Replacement,
    examples: Examples,
    nodes: Mapping[str, Sequence[int]],
) -> float:
    """Share of examples answered by the competing answer when ``nodes`` take their values from the corrupted prompt.

    An interchange intervention (Geiger et al. 2021, §3): everything else keeps the value that it has on the prompt. A
    node that carries the whole deciding information flips every answer; one that carries none flips nothing.

    Args:
        model: the full model.
        masks: the circuit's masks, or all-open ones for the full model.
        replacement: what a removed edge contributes.
        examples: prompts with corrupted ones of the same length.
        nodes: channels by site.

    Returns:
        A share in [0, 1].
    """
    at = examples.length - 1
    with model.sites.recorded(nodes) as corrupted:
        masked_logits(model, masks, replacement, examples.corrupted, at, examples.tokens)
    taken = {site: exchanged(corrupted[site].clone(), list(channels)) for site, channels in nodes.items()}
    with model.sites.edited(after=taken):
        logits = masked_logits(model, masks, replacement, examples.tokens, at, examples.corrupted)
    return float((logits.argmax(-1) == examples.wrong).float().mean())


def exchanged(other: Tensor, channels: Sequence[int]) -> Edit:
    """The edit that gives some channels of a site their values in another run.

    Args:
        other: the other run's activation, (example, position, channel).
        channels: those that are replaced.
    """
    channels = list(channels)

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., channels] = other[..., channels]
        return x

    return edit
