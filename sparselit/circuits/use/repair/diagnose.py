"""A diagnosis: which weight or node is responsible for a model's errors, by changing each alone and counting.

Responsibility is causal and exact: the share of the errors that become right when one weight alone takes the value that
is best for it, or when one node has the value that it has on the nearest right prompt. What is chosen on one half of
the errors is counted on the other half, so that choosing does not flatter it. A finding is reported where the 95 %
interval of that count says that it repairs most of them, and that it breaks hardly any right prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from sparselit.circuits.loaded import Recorded
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.circuits.use.repair.objective import MARGIN, Cases, Entries, Objective, gradients, lead
from sparselit.circuits.use.repair.repair import Errors
from sparselit.circuits.use.repair.smallest import GRID, fitted, steps
from sparselit.data.examples import Examples
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, Place
from sparselit.statistics.intervals import wilson

#: A finding repairs more than this share of the held-out errors, and breaks less than that share of right prompts.
REPAIRS, BREAKS = 0.5, 0.1
#: Weights that are tried one by one: the circuit's with the largest gradient, others whose removal promises most.
INSIDE, OUTSIDE = 32, 16
#: Weights whose value is fitted, and prompts of each kind that are used for it.
REFINED, PROMPTS = 5, 64
#: What a change of the largest entry of its tensor costs, in logits; setting to zero and turning the sign cost nothing.
COST = 0.02
#: A node differs where it is this many standard deviations from its value on the nearest right prompt.
DIFFERS = 1.0
_SHOWN, _HALVINGS, _USUAL = 5, 8, 0.1
Kind = Literal["restore", "turn", "ablate", "change"]
Counted = tuple[float, tuple[float, float]]  # a share and its 95 % interval


@dataclass(frozen=True)
class Suspect:
    """One weight or bias.

    Attributes:
        place: parameter, row and column.
        kind: what mends: a value where there was none, the other sign, none, or another size.
        before: its value.
        after: the value that is best on the first half of the errors.
        inside: whether it is one of the circuit's.
        loss: what remains with it (logits), with the cost of the change; suspects are ranked by it.
        repairs: share of the held-out errors that become right.
        breaks: share of right prompts that become wrong.
    """

    place: Place
    kind: Kind
    before: float
    after: float
    inside: bool
    loss: float
    repairs: Counted
    breaks: Counted

    @property
    def found(self) -> bool:
        """Whether the intervals say that it is responsible for most of the errors."""
        return self.repairs[1][0] > REPAIRS and self.breaks[1][1] < BREAKS


@dataclass(frozen=True)
class Group:
    """Errors in which the same node is the first that differs from the nearest right prompt.

    Attributes:
        node: site and channel; None where no node of the circuit differs.
        share: of the errors.
        repairs: share of them that the node's value on the nearest right prompt, at the answer, makes right.
    """

    node: tuple[str, int] | None
    share: float
    repairs: Counted | None


@dataclass(frozen=True)
class Diagnosis:
    """What is behind some errors.

    Attributes:
        n: prompts that were looked at.
        wrong: how many of them are answered wrongly.
        suspects: the most responsible weights, the first by what remains with it.
        pairs: two suspects, and the share of held-out errors that both together repair.
        groups: the errors by what their nodes did.
        circuit_errs: share of the errors that the circuit alone makes too.
        unexplained: share of the held-out errors that no suspect repairs.
    """

    n: int
    wrong: int
    suspects: tuple[Suspect, ...]
    pairs: tuple[tuple[int, int, Counted], ...]
    groups: tuple[Group, ...]
    circuit_errs: Counted
    unexplained: Counted

    @property
    def fault(self) -> Suspect | None:
        """The weight behind most of the errors; None where none is."""
        return self.suspects[0] if self.suspects and self.suspects[0].found else None


class Answers(Objective):
    """By how much right answers fall short of the lead that nine in ten have in this model, at most ``MARGIN``.

    Errors and right prompts weigh the same, and what the model said before does not count. The loss is 0 as soon as
    everything is answered as clearly as what is right already, so that weights which do more are no better suspects.
    """

    def __init__(self, model: Transformer, cases: Cases) -> None:
        super().__init__(model, cases)
        with torch.no_grad():
            usual = lead(self.logits({})[self._n :], cases.right.answer).quantile(_USUAL)
        self._margin = min(MARGIN, float(usual))

    def loss(self, changed: Mapping[str, Tensor]) -> Tensor:
        """Logits that are missing, with some tensors exchanged."""
        logits, n = self.logits(changed), self._n
        parts = ((logits[:n], self.cases.wrong), (logits[n:], self.cases.right))
        return sum(((self._margin - lead(x, one.answer)).clamp(min=0).mean() for x, one in parts), torch.zeros(()))


def diagnose(model: Transformer, circuit: Recorded, errors: Errors) -> Diagnosis:
    """Trace errors to weights and nodes.

    Args:
        model: that errs; of the circuit's shape. Only the circuit's places are used, not its values.
        circuit: the known circuit.
        errors: of the model.
    """
    cases = errors.cases
    every = max(1, len(cases.right.answer) // PROMPTS)  # prompts of both kinds that are to stay
    few = Cases(cases.wrong.select(slice(0, PROMPTS)), cases.right.select(slice(0, None, every)))
    objective = Answers(model, few)
    ranked = _ranked(model, circuit.circuit.places, objective)
    suspects = sorted((_suspect(model, *one, objective, errors) for one in ranked), key=lambda one: one.loss)[:_SHOWN]
    mended = torch.zeros(len(errors.held_out.answer), dtype=torch.bool)
    for suspect in suspects:
        mended |= _right(Entries(model, [suspect.place]).model(model, torch.tensor([suspect.after])), errors.held_out)
    engine = circuit.engine.naive.in_model(model)
    numbers = engine.edges.numbers(circuit.circuit.places)
    kept = torch.zeros(len(engine.edges), dtype=torch.bool)
    kept[numbers[numbers >= 0]] = True
    alone = Subnetwork(engine, kept)
    wrong = errors.held_out
    return Diagnosis(
        errors.n,
        errors.wrong,
        tuple(suspects),
        tuple(_pairs(model, suspects, objective, errors)),
        tuple(_groups(model, alone, wrong, errors.cases.right)),
        _counted(alone.logits(wrong).argmax(-1) != wrong.answer),
        _counted(~mended),
    )


def _ranked(model: Transformer, places: Sequence[Place], objective: Objective) -> list[tuple[Place, Tensor, bool]]:
    """The weights with which least of the loss remains, with their best values and whether they are the circuit's."""
    edges = Edges.of(model)
    inside = set(places)
    others = [place for place in (edges.describe(i) for i in range(len(edges))) if place not in inside]
    found: list[tuple[float, Place, Tensor, bool]] = []
    every = Entries(model, places)
    slope = every.of(gradients(objective, (name for name, _, _ in places), {})).abs() * every.scale
    for place in (places[i] for i in slope.argsort(descending=True, stable=True)[:INSIDE].tolist()):
        entries = Entries(model, [place])
        for value in steps(entries.values[0], entries.scale[0]):
            found.append((_score(entries, value[None], objective), place, value[None], True))
    if others:
        outside = Entries(model, others)
        gain = outside.of(gradients(objective, edges.names, {})) * outside.values
        for i in gain.argsort(descending=True, stable=True)[:OUTSIDE].tolist():
            zero = torch.zeros(1)
            found.append((_score(Entries(model, [others[i]]), zero, objective), others[i], zero, False))
    best: dict[Place, tuple[Place, Tensor, bool]] = {}
    for _, place, value, own in sorted(found, key=lambda row: row[0]):
        best.setdefault(place, (place, value, own))
    return list(best.values())[:REFINED]


@torch.no_grad()
def _score(entries: Entries, value: Tensor, objective: Objective) -> float:
    """What remains of the loss with another value (1,) of one entry, and what the change costs."""
    old = float(entries.values)
    plain = float(value) in (0.0, -old) and old != 0
    change = 0.0 if plain else (float(value) - old) / float(entries.scale)
    return float(objective.loss(entries.tensors(value))) + COST * change**2


def _suspect(
    model: Transformer, place: Place, value: Tensor, inside: bool, objective: Objective, errors: Errors
) -> Suspect:
    entries = Entries(model, [place])
    best = _refined(entries, value, objective) if inside else value
    other = entries.model(model, best)
    before, after = float(entries.values), float(best)
    return Suspect(
        place,
        _kind(before, after),
        before,
        after,
        inside,
        round(_score(entries, best, objective), 6),
        _counted(_right(other, errors.held_out)),
        _counted(~_right(other, errors.cases.right)),
    )


def _refined(entries: Entries, value: Tensor, objective: Objective) -> Tensor:
    """A better value (1,) of one entry near one that was tried, by halving the step eight times."""
    step = entries.scale * GRID[0]
    least = _score(entries, value, objective)
    for _ in range(_HALVINGS):
        for other in (value - step, value + step):
            if (score := _score(entries, other, objective)) < least:
                value, least = other, score
        step = step / 2
    return value


def _kind(before: float, after: float) -> Kind:
    if before == 0:
        return "restore"
    if abs(after) < 0.1 * abs(before):
        return "ablate"
    return "turn" if before * after < 0 else "change"


@torch.no_grad()
def _right(model: Transformer, examples: Examples) -> Tensor:
    return lead(model(examples.tokens, examples.length - 1), examples.answer) > 0


def _counted(truth: Tensor) -> Counted:
    n, k = len(truth), int(truth.sum())
    low, high = wilson(k, n)
    return (round(k / n, 6) if n else 0.0), (round(low, 6), round(high, 6))


def _pairs(
    model: Transformer, suspects: Sequence[Suspect], objective: Objective, errors: Errors
) -> list[tuple[int, int, Counted]]:
    """What two of the first three suspects repair together, fitted together; nothing where one alone is the fault."""
    found: list[tuple[int, int, Counted]] = []
    if suspects and suspects[0].found:
        return found
    for i, j in combinations(range(min(3, len(suspects))), 2):
        entries = Entries(model, [suspects[i].place, suspects[j].place])
        values = fitted(entries, torch.tensor([suspects[i].after, suspects[j].after]), objective)
        found.append((i, j, _counted(_right(entries.model(model, values), errors.held_out))))
    return found


@torch.no_grad()
def _groups(model: Transformer, circuit: Subnetwork, wrong: Examples, right: Examples) -> list[Group]:
    """Errors by the first node that differs at the answer, and what its value on the nearest right prompt mends."""
    nodes = [(name, c) for name, channels in circuit.on(right).nodes.items() for c in channels]
    if not nodes or not len(wrong.answer):
        return []
    mine, theirs = (_values(model, part, nodes) for part in (wrong, right))
    near = _nearest(wrong, right)
    spread = theirs.std(0, unbiased=False)
    far = ((mine - theirs[near]).abs() / spread.clamp(min=1e-6)) > DIFFERS
    first = torch.where(far.any(1), far.float().argmax(1), -1)
    found = []
    for number, count in Counter(first.tolist()).most_common(_SHOWN):
        part = (first == number).nonzero()[:, 0]
        share = round(count / len(first), 6)
        if number < 0:
            found.append(Group(None, share, None))
            continue
        examples, value = wrong.select(part), theirs[near[part], number]
        found.append(Group(nodes[number], share, _counted(_patched(model, examples, nodes[number], value))))
    return found


def _values(model: Transformer, examples: Examples, nodes: Sequence[tuple[str, int]]) -> Tensor:
    """Values of nodes at the answer position in the full model (example, node)."""
    rows = torch.arange(len(examples.answer))
    with model.sites.recorded(dict.fromkeys(name for name, _ in nodes)) as records:
        model(examples.tokens)
    return torch.stack(
        [records[name].expand(len(rows), -1, -1)[rows, examples.length - 1, channel] for name, channel in nodes], 1
    )


def _nearest(wrong: Examples, right: Examples) -> Tensor:
    """For each wrong prompt the right one with the same answer, where there is any, and the fewest other tokens."""
    width = max(wrong.tokens.shape[1], right.tokens.shape[1])

    def aligned(part: Examples) -> Tensor:
        column = torch.arange(width) - (width - part.length[:, None])
        return part.tokens.gather(1, column.clamp(min=0)).masked_fill(column < 0, -1)

    differ = (aligned(wrong)[:, None] != aligned(right)[None]).sum(-1)
    return (differ + width * (wrong.answer[:, None] != right.answer[None])).argmin(1)


def _patched(model: Transformer, examples: Examples, node: tuple[str, int], value: Tensor) -> Tensor:
    """Which prompts are right when a node has another value (example,) at the answer position."""
    site, channel = node
    rows = torch.arange(len(examples.answer))

    def edit(x: Tensor) -> Tensor:
        x = x.expand(len(rows), -1, -1).clone()
        x[rows, examples.length - 1, channel] = value
        return x

    edits: dict[str, Edit] = {site: edit}
    with model.sites.edited(after=edits):
        logits = model(examples.tokens)[rows, examples.length - 1]
    return lead(logits, examples.answer) > 0
