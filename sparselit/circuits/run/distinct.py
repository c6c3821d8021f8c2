"""Prompts that a set of edges cannot tell apart are run once.

Of a token without kept embedding edges the model sees what takes its place, the same for all of them; of what follows
the answer's position it sees nothing. Where few tokens are left, few prompts differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparselit.model.wiring import Edges

#: Share of the prompts from which on too few of them are alike.
TOO_MANY = 0.9


class Distinct(NamedTuple):
    """Some prompts, each kind of them once, in the order in which they occur.

    Attributes:
        tokens: (kind, position), cut behind the last answer.
        at: (kind,) the position whose logits are wanted.
        back: (example,) the kind of each prompt; None where all are run.
    """

    tokens: Tensor
    at: Tensor
    back: Tensor | None


def distinct(tokens: Tensor, at: Tensor, edges: Edges) -> Distinct:
    """The prompts that differ to ``edges``; not where the ablation itself depends on the prompt.

    Args:
        tokens: (example, position).
        at: (example,) the position whose logits are wanted.
        edges: of a compacted model, all that may be open.
    """
    length = int(at.max()) + 1 if len(at) else tokens.shape[1]
    tokens = tokens[:, :length]
    read = _alike(edges, ("embed",), tokens)
    last = _alike(edges, ("embed", "logits"), tokens)
    position = torch.arange(length, device=tokens.device)
    seen = torch.where(position < at[:, None], read[tokens], read.new_zeros(()))
    seen = seen.scatter(1, at[:, None], last[tokens.gather(1, at[:, None])])
    factors = torch.randint(2**62, (length + 1,), generator=torch.Generator().manual_seed(0)).to(tokens.device)
    code = (seen * factors[:length]).sum(1) + at * factors[length]  # modulo 2^64
    _, back = code.unique(return_inverse=True)
    kinds = int(back.max()) + 1 if len(back) else 0
    if kinds > TOO_MANY * len(back):
        return Distinct(tokens, at, None)
    first = torch.full((kinds,), len(back), device=back.device)
    first = first.scatter_reduce(0, back, torch.arange(len(back), device=back.device), "amin")
    first, order = first.sort()
    back = order.argsort()[back]
    alike = first[back]
    if not (torch.equal(seen, seen[alike]) and torch.equal(at, at[alike])):  # two codes that are equal by chance
        return Distinct(tokens, at, None)
    return Distinct(tokens[first], at[first], back)


class InOrder:
    """Logits of one portion of the prompts after the other; a kind is computed when it is met for the first time.

    Args:
        kinds: the prompts.
        run: logits of a slice of the kinds.
    """

    def __init__(self, kinds: Distinct, run: Callable[[slice], Tensor]) -> None:
        self._back, self._run = kinds.back, run
        self._found: list[Tensor] = []
        self._done = 0

    def __call__(self, portion: slice) -> Tensor:
        """Logits (example, vocabulary)."""
        if self._back is None:
            return self._run(portion)
        wanted = self._back[portion]
        end = int(wanted.max()) + 1
        if end > self._done:
            self._found = [torch.cat([*self._found, self._run(slice(self._done, end))])]
            self._done = end
        return self._found[0][wanted]


def _alike(edges: Edges, targets: tuple[str, ...], tokens: Tensor) -> Tensor:
    """A number (token,) for each token, 0 for all without an edge to these sites."""
    kinds = torch.zeros(int(tokens.max()) + 1 if tokens.numel() else 0, dtype=torch.long)
    for number, name in enumerate(edges.names):
        bundle = edges.bundles[name]
        if bundle.source == "token" and bundle.target in targets:
            alive = edges.row[edges.members[number]].unique()
            alive = alive[alive < len(kinds)]
            kinds[alive] = alive + 1
    return kinds.to(tokens.device)
