"""A red team that reads the circuit: prompts of the task on which it is deceived, and whether the full model is too.

From right prompts, tokens are exchanged, put in and taken out so that the right answer's margin in the compacted
circuit falls (greedy coordinate search); the task's own rule says what is right after each move. The full model is
asked about the end of each walk only. Beside it stand walks of as many random moves, walks that look at the full model
instead of the circuit, and walks that follow the full model's gradient (HotFlip, Ebrahimi et al. 2018).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.audit.removal import removals
from sparselit.circuits.use.prompts import Domain, unanswered
from sparselit.circuits.use.repair.objective import lead
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.statistics.intervals import wilson

Row = tuple[int, ...]
#: Answer logits (row, vocabulary) of some prompts.
Asked = Callable[[Examples], Tensor]
METHODS = ("circuit", "random", "model", "gradient")
_PATIENCE = 8  # moves drawn for each that is a prompt of the task


@dataclass(frozen=True)
class Settings:
    """How long to search.

    Attributes:
        prompts: walks, each from another right prompt.
        steps: most moves of a walk.
        width: moves that are compared before each.
        seed: of the draws.
    """

    prompts: int = 64
    steps: int = 12
    width: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What one method reached.

    Attributes:
        method: its name.
        asked: evaluations of the circuit or the model during the search.
        n: prompts at the ends of its walks, all different.
        both: of them, answered wrongly by model and circuit: the circuit predicts the failure.
        model_only: by the model alone.
        circuit_only: by the circuit alone.
        interval: 95 % interval of the share that the full model answers wrongly.
        transfer: share that other models answer wrongly, by name.
    """

    method: str
    asked: int
    n: int
    both: int
    model_only: int
    circuit_only: int
    interval: tuple[float, float]
    transfer: Mapping[str, float]

    @property
    def success(self) -> float:
        """Share of its prompts that the full model answers wrongly."""
        return (self.both + self.model_only) / self.n if self.n else 0.0


@dataclass(frozen=True)
class Attack:
    """The outcomes of all methods, and what the circuit's own attack found.

    Attributes:
        outcomes: by method.
        found: prompts that the full model answers wrongly, with their right answers; by the circuit's attack.
        shortest: the shortest of them after tokens were taken out as long as it stays wrong; empty where there is none.
        exploited: edges by how often the margin that they carry fell most, from the walk's first prompt to its last.
    """

    outcomes: tuple[Outcome, ...]
    found: tuple[tuple[Row, int], ...]
    shortest: Row
    exploited: tuple[tuple[str, int], ...]


def attack(
    circuit: Loaded,
    domain: Domain,
    settings: Settings,
    others: Mapping[str, Transformer] | None = None,
    methods: Sequence[str] = METHODS,
) -> Attack:
    """Look for prompts of the task that are answered wrongly.

    Args:
        circuit: that is read.
        domain: which prompts there are; it needs a rule.
        settings: how long to search.
        others: models of the same vocabulary to which the found prompts are put too.
        methods: of :data:`METHODS`, ``circuit`` among them.

    Raises:
        SparselitError: the task has no rule, or no right prompt to begin with.
    """
    if domain.solve is None:
        raise SparselitError("an attack needs the task's rule (solve), to know what is right")
    starts = _starts(circuit, domain, settings)
    outcomes, ends = [], {}
    for method in methods:
        search = _Search(circuit, domain, settings, method)
        ends[method] = search.walk(starts)
        outcomes.append(
            _outcome(method, search.asked, list(dict.fromkeys(ends[method])), circuit, domain, others or {})
        )
    pairs = [(start, end) for start, end in zip(starts, ends["circuit"], strict=True) if start != end]
    wrong = _wrong(_full(circuit), domain, [end for _, end in pairs]) if pairs else torch.zeros(0, dtype=torch.bool)
    failed = [pair for pair, truth in zip(pairs, wrong.tolist(), strict=True) if truth]
    found = list(dict.fromkeys(end for _, end in failed))
    answers = _right(domain, found).tolist() if found else []
    return Attack(
        tuple(outcomes),
        tuple(zip(found, answers, strict=True)),
        _shortest(circuit, domain, found),
        _exploited(circuit, domain, failed),
    )


class _Search:
    """Walks of one method, all at once."""

    def __init__(self, circuit: Loaded, domain: Domain, settings: Settings, method: str) -> None:
        self.circuit, self.domain, self.settings, self.method = circuit, domain, settings, method
        self.asked = 0
        self._rng = random.Random(f"{method} {settings.seed}")
        self._alphabet = (domain.pairs.any(0) | domain.pairs.any(1)).nonzero()[:, 0].tolist()
        self._ask = _alone(circuit) if method == "circuit" else _full(circuit)

    def walk(self, starts: Sequence[Row]) -> list[Row]:
        """Where each walk ends; one that looks at the full model ends at the first prompt that is answered wrongly."""
        rows = list(starts)
        least = self._margins(rows) if self.method != "random" else torch.zeros(len(rows))
        for _ in range(self.settings.steps):
            blind = self.method in ("random", "circuit")
            alive = [i for i in range(len(rows)) if blind or float(least[i]) > 0]
            if not alive:
                break
            moves = [
                (i, move) for i, some in zip(alive, self._moves([rows[i] for i in alive]), strict=True) for move in some
            ]
            if not moves:
                break
            if self.method == "random":
                for i, move in moves:
                    rows[i] = move  # of the moves of one walk the last drawn stays
                continue
            margins = self._margins([move for _, move in moves])
            for (i, move), margin in zip(moves, margins.tolist(), strict=True):
                if margin < float(least[i]):
                    rows[i], least[i] = move, margin
        return rows

    def _moves(self, rows: Sequence[Row]) -> list[list[Row]]:
        """For each prompt, prompts of the task that are one move away; the gradient chooses where it is used."""
        drawn = [{self._move(row) for _ in range(_PATIENCE * self.settings.width)} - {row} for row in rows]
        flat = [(i, move) for i, some in enumerate(drawn) for move in sorted(some) if move]
        if not flat:
            return [[] for _ in rows]
        examples = unanswered([move for _, move in flat])
        fine = self.domain.looks_valid(examples.tokens, examples.length)
        left: list[list[Row]] = [[] for _ in rows]
        for (i, move), truth in zip(flat, fine.tolist(), strict=True):
            if truth:
                left[i].append(move)
        for some in left:
            self._rng.shuffle(some)
        if self.method == "gradient":
            left = self._steepest(rows, left)
        left = [some[: self.settings.width] for some in left]
        known = [_right(self.domain, some).tolist() if some else [] for some in left]
        return [
            [m for m, right in zip(some, r, strict=True) if right >= 0] for some, r in zip(left, known, strict=True)
        ]

    def _move(self, row: Row) -> Row:
        """One token exchanged, put in or taken out, at random."""
        at, kind = self._rng.randrange(len(row)), self._rng.randrange(4)
        token = self._rng.choice(self._alphabet)
        if kind == 0 and self.method != "gradient" and len(row) < self.circuit.model.max_length:
            return (*row[:at], token, *row[at:])
        if kind == 1 and self.method != "gradient":
            return (*row[:at], *row[at + 1 :])
        return (*row[:at], token, *row[at + 1 :])

    def _margins(self, rows: Sequence[Row]) -> Tensor:
        self.asked += len(rows)
        return lead(self._ask(unanswered(rows)), _right(self.domain, rows))

    def _steepest(self, rows: Sequence[Row], left: Sequence[list[Row]]) -> list[list[Row]]:
        """The moves by the change of the full model's margin that the gradient at the embedding promises."""
        model, examples = self.circuit.model, unanswered(rows)
        table = model.embed.token.weight.detach()
        shift = torch.zeros(*examples.tokens.shape, model.d_model, requires_grad=True)
        edits: dict[str, Edit] = {"embed": lambda x: x + shift}
        with torch.enable_grad(), model.sites.edited(after=edits):
            margin = lead(model(examples.tokens, examples.length - 1), _right(self.domain, rows)).sum()
        self.asked += len(rows)
        (slope,) = torch.autograd.grad(margin, shift)
        ordered = []
        for i, some in enumerate(left):
            promised = []
            for move in some:
                at = next(p for p, (one, other) in enumerate(zip(rows[i], move, strict=True)) if one != other)
                promised.append(float((table[move[at]] - table[rows[i][at]]) @ slope[i, at]))
            ordered.append([move for _, move in sorted(zip(promised, some, strict=True))])
        return ordered


def _alone(circuit: Loaded) -> Asked:
    return lambda examples: circuit.run(examples.tokens, examples.length - 1, examples.corrupted)


def _full(circuit: Loaded) -> Asked:
    return lambda examples: circuit.engine.answers_of(circuit.model, examples)


def _right(domain: Domain, rows: Sequence[Row]) -> Tensor:
    examples = unanswered(rows)
    return domain.right_answers(examples.tokens, examples.length)


def _wrong(ask: Asked, domain: Domain, rows: Sequence[Row]) -> Tensor:
    return ask(unanswered(rows)).argmax(-1) != _right(domain, rows)


def _starts(circuit: Loaded, domain: Domain, settings: Settings) -> list[Row]:
    """Report prompts that circuit and model answer rightly, drawn at random."""
    report = circuit.behaviour.splits["report"]
    rows = [tuple(row[:n]) for row, n in zip(report.tokens.tolist(), report.length.tolist(), strict=True)]
    rows = random.Random(settings.seed).sample(rows, min(len(rows), 2 * settings.prompts))
    fine = (_right(domain, rows) >= 0) & ~_wrong(_full(circuit), domain, rows) & ~_wrong(_alone(circuit), domain, rows)
    found = [row for row, truth in zip(rows, fine.tolist(), strict=True) if truth][: settings.prompts]
    if not found:
        raise SparselitError(
            "there is nothing to begin with: no report prompt is answered rightly by circuit and model"
        )
    return found


def _outcome(
    method: str, asked: int, rows: list[Row], circuit: Loaded, domain: Domain, others: Mapping[str, Transformer]
) -> Outcome:
    model, alone = (_wrong(ask, domain, rows) for ask in (_full(circuit), _alone(circuit)))
    transfer = {}
    for name, other in others.items():
        wrong = _wrong(lambda examples, other=other: circuit.engine.answers_of(other, examples), domain, rows)  # type: ignore[misc]
        transfer[name] = round(float(wrong.double().mean()), 6)
    return Outcome(
        method,
        asked,
        len(rows),
        int((model & alone).sum()),
        int((model & ~alone).sum()),
        int((~model & alone).sum()),
        wilson(int(model.sum()), len(rows)),
        transfer,
    )


def _shortest(circuit: Loaded, domain: Domain, found: Sequence[Row]) -> Row:
    """The shortest prompt on which the model still fails, taking out one token at a time."""
    best: Row = min(found, key=len, default=())
    while len(best) > 1:
        shorter = list(dict.fromkeys((*best[:i], *best[i + 1 :]) for i in range(len(best))))
        examples = unanswered(shorter)
        fine = domain.looks_valid(examples.tokens, examples.length) & (_right(domain, shorter) >= 0)
        fine &= _wrong(_full(circuit), domain, shorter)
        if not bool(fine.any()):
            break
        best = shorter[int(fine.nonzero()[0])]
    return best


def _exploited(circuit: Loaded, domain: Domain, pairs: Sequence[tuple[Row, Row]]) -> tuple[tuple[str, int], ...]:
    """Of each walk, the edge whose share of the right answer's margin fell most."""
    counts: Counter[str] = Counter()
    for start, end in pairs:
        carried = []
        for row in (start, end):
            examples = unanswered([row])
            right = _right(domain, [row])
            logits = circuit.naive.logits(examples)
            rival = logits.scatter(1, right[:, None], -torch.inf).argmax(1)
            removed = removals(circuit, examples, right, rival)
            margin = float(logits[0, right] - logits[0, rival])
            carried.append(margin - removed.circuit[: len(removed.names) - removed.nodes, 0])
            names = removed.names
        counts[names[int((carried[1] - carried[0]).argmin())]] += 1
    return tuple(counts.most_common(5))
