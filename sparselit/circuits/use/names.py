"""Names of nodes, edges and biases, as a person types them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from sparselit.errors import SparselitError
from sparselit.model.site_table import Shape
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, Place, biases, matrices

_PLACE = re.compile(r"(.+\.(?:weight|bias))\[(\d+)(?:,\s*(\d+))?\]")


def node_name(site: str, channel: int) -> str:
    """A node as text: ``layers.0.mlp.act:13``.

    Args:
        site: the site's name.
        channel: index on its last axis.
    """
    return f"{site}:{channel}"


def parse_nodes(text: str, model: Transformer, vocabulary: Sequence[str] = ()) -> tuple[str, list[int]]:
    """The nodes that ``layers.0.mlp.act:13``, ``layers.0.mlp.act:3,5`` or ``layers.0.mlp.act`` (all) means.

    Args:
        text: a site and channels; tokens and logits may be named by the token itself, as in ``token:a``.
        model: whose nodes.
        vocabulary: its tokens.

    Returns:
        Site and channels; ``token`` and ``position`` count as sites.

    Raises:
        SparselitError: there is no such node; the message says what there is.
    """
    site, colon, rest = text.partition(":")
    widths = {name: s.width for name, s in model.sites.items() if s.width > 1 or name in ("embed", "logits")}
    widths = {"token": model.unembed.out_features, "position": model.max_length, **widths}
    if site not in widths:
        close = get_close_matches(site, widths, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"sites are {', '.join(widths)}"
        raise SparselitError(f"{text!r} is no node: no site is called {site!r}; {hint}")
    if not colon:
        return site, list(range(widths[site]))
    if site in ("token", "logits") and rest in vocabulary:
        return site, [list(vocabulary).index(rest)]
    channels = [int(part) if part.strip().isdecimal() else -1 for part in rest.split(",")]
    if any(not 0 <= channel < widths[site] for channel in channels):
        hint = f", or one token as it is: {site}:{vocabulary[0]}" if site in ("token", "logits") and vocabulary else ""
        raise SparselitError(f"{text!r} is no node: the channels of {site} are 0 to {widths[site] - 1:,}{hint}")
    return site, channels


def parse_place(text: str, model: Transformer, edges: Edges | None = None) -> Place | None:
    """The edge or bias that ``layers.0.attn.q.weight[5,2]`` or ``….q.bias[5]`` means; None where the form is another.

    Args:
        text: parameter, row and column; of a bias, parameter and row.
        model: whose tensors.
        edges: its edges; without them also a zero entry counts.

    Raises:
        SparselitError: the form is right, but the model has no such weight, or it is zero.
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    name, row, column = match[1], int(match[2]), match[3]
    known = {**matrices(model), **biases(model)}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"tensors are {', '.join(known)}"
        raise SparselitError(f"{text!r} is no edge: no tensor is called {name!r}; {hint}")
    place = (name, row, int(column or 0))
    if known[name].is_bias == (column is None):
        rows, columns = known[name].size(Shape.of(model.config))
        if row < rows and place[2] < columns if edges is None else int(edges.numbers([place])) >= 0:
            return place
    raise SparselitError(f"{text!r} is no edge: the model has no weight there, or it is zero")
