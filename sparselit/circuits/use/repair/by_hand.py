"""An edit by hand: entries set to a value, or scaled, one by one or all that read a node."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from sparselit.circuits.use.graph import NodeKey
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place, matrices


def by_hand(
    model: Transformer,
    values: Mapping[Place, float],
    factors: Mapping[Place, float],
    nodes: Mapping[NodeKey, float],
) -> Transformer:
    """A copy of a model with some entries set, others scaled, and others scaled because they read a node.

    A node is scaled through the weights that read it, which is the same as scaling its activation where it is read.

    Args:
        model: as it is.
        values: new value by place.
        factors: factor by place.
        nodes: factor by node; a channel of the residual stream is read only where the node's own site is.

    Raises:
        SparselitError: nothing reads a node.
    """
    other = copy.deepcopy(model)
    with torch.no_grad():
        for (name, row, column), value in values.items():
            tensor = other.get_parameter(name)
            tensor.view(len(tensor), -1)[row, column] = value
        for (name, row, column), factor in factors.items():
            tensor = other.get_parameter(name)
            tensor.view(len(tensor), -1)[row, column] *= factor
        for node, factor in nodes.items():
            source = f"{node.site[:-1]}z" if node.site.endswith(".attn.v") else node.site
            readers = [bundle for bundle in matrices(model).values() if bundle.source == source]
            if not readers:
                raise SparselitError(f"no weight reads {node.site}; scale a site that is read, such as a neuron or .in")
            for bundle in readers:
                other.get_parameter(bundle.name).select(1 - bundle.target_axis, node.channel).mul_(factor)
    return other
