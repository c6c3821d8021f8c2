"""What would have changed an answer: the smallest change of the prompt, and of one activation, in the full model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.subnetwork import Subnetwork
from sparselit.circuits.use.prompts import Domain, neighbours, unanswered
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer

#: Prompts with two changed tokens are made from this many with one, those with the smallest margins.
BEAM = 16
#: Activations are moved by these many standard deviations, up and down, and the smallest that flips is bisected.
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_BISECTIONS = 8


@dataclass(frozen=True)
class TokenFlip:
    """A prompt that differs in one or two tokens and is answered otherwise.

    Attributes:
        tokens: the prompt.
        answer: what the full model answers.
        right: the right answer by the task's rule; -1 where there is none.
    """

    tokens: tuple[int, ...]
    answer: int
    right: int


@dataclass(frozen=True)
class TokenFlips:
    """Prompts one token away, all of them; two tokens away, some, where none with one flips.

    Attributes:
        changed: tokens that were changed, 1 or 2.
        tried: prompts of the task's form that were tried.
        flipped: how many of them are answered otherwise.
        justified: how many of those have another right answer too, and get it; None without a rule.
        missed: how many have another right answer, and are answered as before; None without a rule.
        flips: the flips, those with the smallest change of the right answer first; at most a few.
    """

    changed: int
    tried: int
    flipped: int
    justified: int | None
    missed: int | None
    flips: tuple[TokenFlip, ...]


@dataclass(frozen=True)
class ActivationFlip:
    """The smallest change of one node at one position that flips the answer.

    Attributes:
        node: site and channel.
        position: at which token.
        change: what is added, in the unit of the activation.
        deviations: its size in standard deviations of the node.
        answer: what the model answers then.
    """

    node: tuple[str, int]
    position: int
    change: float
    deviations: float
    answer: int


@torch.no_grad()
def token_flips(
    network: Subnetwork, domain: Domain, tokens: Sequence[int], answer: int, rival: int, shown: int = 4
) -> TokenFlips:
    """Change one token of a prompt in every way that leaves a prompt of the task; where no change flips, two.

    Args:
        network: of the full model.
        domain: which sequences are prompts.
        tokens: the prompt.
        answer: what the full model answers.
        rival: the token whose margin guides the second change.
        shown: flips that are listed.
    """
    alphabet = (domain.pairs.any(0) | domain.pairs.any(1)).nonzero()[:, 0].tolist()
    rows, found = [list(tokens)], None
    for changed in (1, 2):
        rows = [list(row) for row in dict.fromkeys(tuple(new) for row in rows for new in neighbours(row, alphabet))]
        rows = [row for row in rows if row != list(tokens)]
        rows = [rows[i] for i in _valid(domain, rows)]
        if not rows:
            break
        examples = unanswered(rows)
        logits = network.engine.answers_of(network.model, examples)
        right = domain.right_answers(examples.tokens, examples.length)
        found = _counted(domain, rows, changed, answer, logits.argmax(-1), right, domain_right(domain, tokens), shown)
        if found.flipped:
            break
        margin = logits[:, answer] - logits[:, rival]
        rows = [rows[i] for i in margin.argsort(stable=True)[:BEAM].tolist()]
    return found or TokenFlips(1, 0, 0, None if domain.solve is None else 0, None if domain.solve is None else 0, ())


def domain_right(domain: Domain, tokens: Sequence[int]) -> int:
    """The right answer to one prompt by the rule; -1 without any."""
    return int(domain.right_answers(torch.tensor([list(tokens)]), torch.tensor([len(tokens)])))


def _valid(domain: Domain, rows: list[list[int]]) -> list[int]:
    """Which rows are prompts of the task: of its form and, where there is a rule, with an answer."""
    if not rows:
        return []
    examples = unanswered(rows)
    fine = domain.looks_valid(examples.tokens, examples.length)
    if domain.solve is not None:
        fine &= domain.right_answers(examples.tokens, examples.length) >= 0
    return fine.nonzero()[:, 0].tolist()


def _counted(
    domain: Domain,
    rows: list[list[int]],
    changed: int,
    answer: int,
    said: Tensor,
    right: Tensor,
    before: int,
    shown: int,
) -> TokenFlips:
    flipped = said != answer
    known = domain.solve is not None and before >= 0
    moved = right != before
    order = [*(flipped & ~moved).nonzero()[:, 0].tolist(), *(flipped & moved).nonzero()[:, 0].tolist()]
    if known:  # both kinds are shown where there are both
        half = (shown + 1) // 2
        wrong, just = (flipped & ~moved).nonzero()[:, 0].tolist(), (flipped & moved).nonzero()[:, 0].tolist()
        order = [*wrong[: max(half, shown - len(just))], *just][:shown]
    return TokenFlips(
        changed,
        len(rows),
        int(flipped.sum()),
        int((flipped & moved & (said == right)).sum()) if known else None,
        int((~flipped & moved).sum()) if known else None,
        tuple(TokenFlip(tuple(rows[i]), int(said[i]), int(right[i])) for i in order[:shown]),
    )


@torch.no_grad()
def activation_flips(
    model: Transformer,
    tokens: Sequence[int],
    answer: int,
    nodes: Sequence[tuple[str, int]],
    scale: Sequence[float],
    shown: int = 3,
) -> tuple[ActivationFlip, ...]:
    """The nodes whose activation at one position has to change least, for the full model to answer otherwise.

    Args:
        model: the full model.
        tokens: the prompt.
        answer: what it answers.
        nodes: site and channel.
        scale: standard deviation of each node; a node without any is left out.
        shown: how many are given.
    """
    prompt = torch.tensor([list(tokens)])
    found = []
    for node, deviation in zip(nodes, scale, strict=True):
        if deviation < 1e-9:
            continue
        moves = [(p, sign * step) for step in STEPS for sign in (1.0, -1.0) for p in range(len(tokens))]
        said = _moved(model, prompt, node, [(p, step * deviation) for p, step in moves])
        flipped = (said != answer).nonzero()[:, 0].tolist()
        if flipped:
            p, step = moves[flipped[0]]  # the moves are in the order of their size
            found.append((abs(step), node, p, step * deviation, deviation))
    flips = []
    for step, node, p, change, deviation in sorted(found, key=lambda row: row[0])[:shown]:
        low = 0.0 if step == STEPS[0] else change * STEPS[STEPS.index(step) - 1] / step
        for _ in range(_BISECTIONS):
            middle = (low + change) / 2
            flips_there = int(_moved(model, prompt, node, [(p, middle)])[0]) != answer
            low, change = (low, middle) if flips_there else (middle, change)
        then = int(_moved(model, prompt, node, [(p, change)])[0])
        flips.append(ActivationFlip(node, p, round(change, 6), round(abs(change) / deviation, 6), then))
    return tuple(sorted(flips, key=lambda flip: flip.deviations))


def _moved(model: Transformer, prompt: Tensor, node: tuple[str, int], moves: list[tuple[int, float]]) -> Tensor:
    """What the model answers when a node has something added at one position, for each move."""
    site, channel = node
    rows = torch.arange(len(moves))
    at = torch.tensor([position for position, _ in moves])
    by = torch.tensor([change for _, change in moves])

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[rows, at, channel] += by
        return x

    edits: dict[str, Edit] = {site: edit}
    with model.sites.edited(after=edits):
        logits: Tensor = model(prompt.expand(len(moves), -1).contiguous())
    return logits[:, -1].argmax(-1)
