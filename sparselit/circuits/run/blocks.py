"""The order of the blocks: which attentions and MLPs are computed before a tensor acts or a site is read."""

from __future__ import annotations


def residual_sites(n_layers: int) -> list[str]:
    """Where the residual stream is recorded, after each attention and each MLP of so many layers."""
    return [f"layers.{i}.{block}.residual" for i in range(n_layers) for block in ("attn", "mlp")]


def blocks_below(name: str, blocks: int) -> int:
    """How many blocks are computed before a matrix or bias acts, or a site is reached.

    Args:
        name: of the tensor or of the site.
        blocks: attentions and MLPs of the model.
    """
    if name.startswith("layers."):
        _, layer, block, *_ = name.split(".")
        return 2 * int(layer) + (block == "mlp")
    return blocks if name.startswith(("unembed.", "bigram.", "logits")) else 0
