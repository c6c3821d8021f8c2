"""The sparse file gives back every bit, is small, and is the same when it is written again."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from sparselit.errors import SparselitError
from sparselit.interop.sparse_file import from_bytes, to_bytes


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(40, 30, generator=generator) * (torch.rand(40, 30, generator=generator) < 0.02)
    sparse[3, 4], sparse[5, 6] = -0.0, float("nan")
    kernel = torch.zeros(4, 3, 5, 5)
    kernel[1, 2, 3, 4] = 2.0
    return {
        "sparse": sparse,
        "half": sparse.bfloat16(),
        "double": sparse.double(),
        "kernel": kernel,
        "empty": torch.zeros(50, 50),
        "dense": torch.randn(7, 5, generator=generator),
        "bias": torch.zeros(9),
        "count": torch.tensor(3),
    }


def test_the_round_trip_is_exact_to_the_bit():
    state = tensors()
    found = from_bytes(to_bytes(state))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy(force=True).tobytes() == tensor.numpy().tobytes() if name != "half" else True
    assert torch.equal(found["half"].view(torch.int16), state["half"].view(torch.int16))
    assert torch.signbit(found["sparse"][3, 4])


def test_writing_again_gives_the_same_bytes_and_a_sparse_model_is_small():
    state = tensors()
    content = to_bytes(state)
    assert to_bytes(from_bytes(content)) == content
    assert to_bytes(dict(reversed(state.items()))) == content
    big = {"w": torch.zeros(1000, 1000)}
    big["w"][::100, ::100] = 1.0
    assert len(to_bytes(big)) < len(save(big)) / 100


def test_other_files_are_refused():
    for content in (b"", b"nonsense", save({"w": torch.ones(2)})):
        with pytest.raises(SparselitError, match="no sparse export"):
            from_bytes(content)
