"""How typical a prompt is of what a circuit was certified on, held against how typical held-out prompts are.

Two distances to the nearest discovery prompt are taken: tokens that differ when both are aligned at the answer, and the
values of the circuit's nodes at the answer. A conformal p-value (Vovk et al. 2005; Laxhammar 2014 for nearest
neighbours) is the share of held-out prompts that lie at least as far, so that a prompt of the same kind has p ≤ a with
probability at most about a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.loaded import Loaded
from sparselit.circuits.size import nodes_of
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.circuits.use.prompts import Domain
from sparselit.data.examples import Examples

#: Discovery prompts that a prompt is compared with, and report prompts that say what is usual: the first ones.
REFERENCE, CALIBRATION = 1024, 512
_CHUNK = 64


@dataclass(frozen=True)
class Typical:
    """Where one prompt lies.

    Attributes:
        tokens: tokens that differ from the nearest discovery prompt's, aligned at the answer.
        tokens_p: share of held-out prompts that lie at least as far, in (0, 1].
        inside: distance of the nodes' values from the nearest, in standard deviations of each node, root mean square.
        inside_p: the same share.
        nearest: number of the discovery prompt that is nearest inside.
        unusual: what no known prompt has: neighbours, an end, a length, or more of one token than any discovery prompt.
        unusual_share: share of held-out prompts of which something unusual is said too.
    """

    tokens: int
    tokens_p: float
    inside: float
    inside_p: float
    nearest: int
    unusual: tuple[str, ...]
    unusual_share: float


def nodes_inside(network: Subnetwork) -> list[tuple[str, int]]:
    """Site and channel of a circuit's nodes that are activations, in the order of the forward pass."""
    found = nodes_of(network.edges, network.kept & ~network.edges.is_bias)
    return [(name, channel) for name in network.model.sites for channel in found.get(name, ()) if name != "logits"]


def values_at_answer(network: Subnetwork, examples: Examples, nodes: list[tuple[str, int]]) -> Tensor:
    """Values of some nodes at the answer position (example, node).

    Args:
        network: a set of edges.
        examples: few enough for one forward pass.
        nodes: site and channel.
    """
    records = network.on(examples).recorded(list(dict.fromkeys(name for name, _ in nodes)))
    columns = []
    for name, channel in nodes:
        value = records[name][..., channel].expand(len(examples.answer), -1)
        at = torch.zeros_like(examples.length) if value.shape[1] == 1 else examples.length - 1
        columns.append(value.gather(1, at[:, None])[:, 0])
    return torch.stack(columns, 1) if columns else torch.zeros(len(examples.answer), 0)


class Typicality:
    """What prompts of a circuit's task are like.

    Args:
        circuit: whose discovery and report splits are known.
        domain: of its task.
    """

    def __init__(self, circuit: Loaded, domain: Domain) -> None:
        self.circuit, self.domain = circuit, domain
        self.reference = circuit.behaviour.splits["discovery"].select(slice(0, REFERENCE))
        calibration = circuit.behaviour.splits["report"].select(slice(0, CALIBRATION))
        self.nodes = nodes_inside(circuit)
        self._values = values_at_answer(circuit, self.reference, self.nodes)
        self.scale = (self._values - self._values.mean(0)).square().mean(0).sqrt()
        self._most = _counts(self.reference, len(domain.vocabulary)).amax(0)
        self._usual_tokens, self._usual_inside = self._tokens(calibration), self._inside(calibration)[0]
        self._usual_odd = sum(map(bool, self._unusual(calibration))) / len(calibration.answer)

    def of(self, examples: Examples) -> list[Typical]:
        """Where each prompt lies."""
        tokens, (inside, nearest) = self._tokens(examples), self._inside(examples)
        return [
            Typical(
                int(tokens[i]),
                _share(self._usual_tokens, tokens[i]),
                round(float(inside[i]), 6),
                _share(self._usual_inside, inside[i] - 1e-6),
                int(nearest[i]),
                unusual,
                round(self._usual_odd, 6),
            )
            for i, unusual in enumerate(self._unusual(examples))
        ]

    def _tokens(self, examples: Examples) -> Tensor:
        width = max(examples.tokens.shape[1], self.reference.tokens.shape[1])
        one, other = _right_aligned(examples, width), _right_aligned(self.reference, width)
        parts = [(part[:, None] != other).sum(-1).amin(1) for part in one.split(_CHUNK)]
        return torch.cat(parts)

    def _inside(self, examples: Examples) -> tuple[Tensor, Tensor]:
        live = self.scale > 1e-9
        if not bool(live.any()):
            nothing = torch.zeros(len(examples.answer))
            return nothing, nothing.long()
        one = values_at_answer(self.circuit, examples, self.nodes)[:, live] / self.scale[live]
        other = self._values[:, live] / self.scale[live]
        far = torch.cdist(one.double(), other.double()) / int(live.sum()) ** 0.5
        nearest = far.min(1)
        return nearest.values, nearest.indices

    def _unusual(self, examples: Examples) -> list[tuple[str, ...]]:
        more = _counts(examples, len(self.domain.vocabulary)) > self._most
        looks = self.domain.looks_valid(examples.tokens, examples.length)
        return [
            (*([] if fits else ["its ends, neighbours or length occur in no known prompt"]),
             *(f"more than {int(self._most[token])} of {self.domain.vocabulary[token]!r}"
               for token in row.nonzero()[:, 0].tolist()))
            for row, fits in zip(more, looks.tolist(), strict=True)
        ]  # fmt: skip


def _share(usual: Tensor, value: Tensor) -> float:
    return round((1 + int((usual >= value).sum())) / (1 + len(usual)), 6)


def _right_aligned(examples: Examples, width: int) -> Tensor:
    """Prompts (example, width) that end in the last column; -1 before they begin."""
    column = torch.arange(width) - (width - examples.length[:, None])
    return examples.tokens.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)


def _counts(examples: Examples, size: int) -> Tensor:
    """How often each token stands in each prompt (example, token)."""
    found = torch.zeros(len(examples.answer), size, dtype=torch.long)
    return found.scatter_add_(1, examples.tokens, examples.real.long())
