"""A model that can be gone back to: its tensors, sparse ones by their non-zeros, and the optimizers' states."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def pack(tensor: Tensor) -> dict[str, Any]:
    """A tensor as plain containers, by its non-zeros where these are few.

    Args:
        tensor: any tensor.
    """
    tensor = tensor.detach()
    flat = tensor.reshape(-1)
    if tensor.is_floating_point() and 8 * int(tensor.count_nonzero()) < tensor.numel():
        index = flat.nonzero().flatten()
        return {"shape": list(tensor.shape), "index": index, "values": flat[index]}
    return {"dense": tensor.clone()}


def unpack_(packed: Mapping[str, Any], tensor: Tensor) -> None:
    """Write a packed tensor into one of the same shape, in place.

    Args:
        packed: what :func:`pack` made.
        tensor: where it goes.
    """
    with torch.no_grad():
        if "dense" in packed:
            tensor.copy_(packed["dense"])
        else:
            flat = torch.zeros_like(tensor).reshape(-1)
            flat[packed["index"].to(tensor.device)] = packed["values"].to(tensor)
            tensor.copy_(flat.reshape(packed["shape"]))


def take(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    """All tensors of a module and the states of its optimizers, copied.

    Args:
        module: any module.
        optimizers: its optimizers.
    """
    tensors = {name: pack(tensor) for name, tensor in module.state_dict().items()}
    return {"tensors": tensors, "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]}


def restore_(snapshot: Mapping[str, Any], module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Bring a module and its optimizers back to a snapshot, in place.

    Where the snapshot has lost the optimizers' states, their moments become zero.

    Args:
        snapshot: what :func:`take` made.
        module: the module that it was taken of.
        optimizers: the optimizers, in the same order.
    """
    for name, tensor in module.state_dict().items():
        unpack_(snapshot["tensors"][name], tensor)
    for number, optimizer in enumerate(optimizers):
        if snapshot["optimizers"]:
            optimizer.load_state_dict(copy.deepcopy(snapshot["optimizers"][number]))
            continue
        for parameter, state in optimizer.state.items():
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.zero_()
