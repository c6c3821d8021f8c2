"""Whether a transformer of a given shape can exist on this machine, known before a tensor is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sparselit.errors import SparselitError

_BYTES = 4  # of a weight in single precision


def check_memory(config: Mapping[str, Any]) -> None:
    """Refuse a shape whose weights alone are larger than the machine's memory.

    Args:
        config: the transformer's arguments, with ``d_head`` and ``d_mlp`` filled in.

    Raises:
        SparselitError: it is too large; the message names the shape and both sizes.
    """
    available = _memory()
    needed = _BYTES * weights(config)
    if available and needed > available:
        names = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "vocab_size", "max_length")
        shape = ", ".join(f"{name} {config[name]}" for name in names)
        raise SparselitError(
            f"model: {needed / 2**30:,.0f} GiB of weights in {available / 2**30:,.0f} GiB of memory:\n{shape}"
        )


def weights(config: Mapping[str, Any]) -> int:
    """Entries of the matrices of a transformer, to within its biases and gains."""
    width, heads = config["d_model"], config["n_heads"] * config["d_head"]
    concatenated = (config["d_position"] or width) if config["positions"].endswith("concatenated") else 0
    read = width + concatenated
    layer = heads * (3 * read + width) + config["d_mlp"] * (read + width)
    tables = config["vocab_size"] * width * 2 + config["max_length"] * (width + concatenated)
    return int(config["n_layers"] * layer + tables + config["vocab_size"] ** 2 * config["bigram"])


def _memory() -> int:
    """Bytes of memory of this machine, 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
