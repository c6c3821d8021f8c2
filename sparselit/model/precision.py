"""In which precision a model's weights are read, and searched for circuits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into a module of single precision without rounding any: a module of double ones becomes double.

    Half precision is read into single precision, which holds the same numbers.

    Args:
        module: on any device; changed in place.
        tensors: its state dict.

    Raises:
        RuntimeError: the tensors are not those of the module.
    """
    if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
        module.double()
    module.load_state_dict(tensors, strict=True)


def searchable(model: ModuleT) -> ModuleT:
    """The model in a precision in which its circuits are sought and measured: at least single.

    Args:
        model: of any precision.

    Returns:
        The model itself, or a copy in single precision, which holds the same numbers, of one in half precision.
    """
    half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
    return copy.deepcopy(model).float() if half else model
