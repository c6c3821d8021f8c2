"""Examples: which positions are padding."""

from __future__ import annotations

import torch

from sparselit.data.examples import Examples


def test_the_real_positions_are_those_of_the_prompt_on_its_own_device() -> None:
    length = torch.tensor([1, 3, 4])
    tokens, one = torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    examples = Examples(tokens, length, one, one, tokens, one)
    assert examples.real.tolist() == [[True] + 3 * [False], 3 * [True] + [False], 4 * [True]]
    elsewhere = Examples(*(field.to("meta") for field in examples))
    assert elsewhere.real.device.type == "meta"
    assert elsewhere.real.shape == (3, 4)
