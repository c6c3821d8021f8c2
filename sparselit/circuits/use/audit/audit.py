"""The audit: every decision of one model on some prompts, held against the model's known circuits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparselit.circuits.circuit import model_hash
from sparselit.circuits.criterion import divergence
from sparselit.circuits.evidence.compare import differences
from sparselit.circuits.loaded import Loaded, load
from sparselit.circuits.use.audit.flips import activation_flips, token_flips
from sparselit.circuits.use.audit.record import (
    Account,
    Audit,
    Audited,
    Carried,
    Condition,
    Decision,
    Flips,
    Moved,
    Place,
    Thresholds,
    Verdict,
    read_audit,
)
from sparselit.circuits.use.audit.removal import Removals, margins, removals
from sparselit.circuits.use.audit.typical import Typicality
from sparselit.circuits.use.names import node_name
from sparselit.circuits.use.prompts import Domain, Oracle, encoded, unanswered
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.runs.json_record import write
from sparselit.runs.machine import MadeOn
from sparselit.runs.plain_file import read_bytes

#: The full model confirms an edge where it loses this share of its margin without it.
CONFIRMS = 0.1
_ORDER: tuple[Verdict, ...] = ("explained", "partly explained", "not explained")
_DIGITS = 6


class Auditor:
    """Some circuits of one model, ready to be asked.

    Args:
        circuits: at least one; all of the same model.
        solves: the rule of each circuit's task; None where there is none.
        thresholds: of the verdicts.

    Raises:
        SparselitError: the circuits belong to different models.
    """

    def __init__(
        self, circuits: Sequence[Loaded], solves: Sequence[Oracle | None], thresholds: Thresholds | None = None
    ) -> None:
        self.circuits, self.thresholds = circuits, thresholds or Thresholds()
        self.solves = solves
        self.model = circuits[0].model
        for other in circuits[1:]:
            if other.circuit.model.hash != circuits[0].circuit.model.hash:
                raise SparselitError(f"{other.path}: it belongs to another model than {circuits[0].path}")
        self.words = tuple(circuits[0].behaviour.vocabulary)
        self.typicality = [
            Typicality(circuit, Domain.of(circuit.behaviour, solve))
            for circuit, solve in zip(circuits, solves, strict=True)
        ]

    def audit(self, prompts: Sequence[str], root: Path, told: Callable[[int, int], None] | None = None) -> Audit:
        """Account for the model's answer to each prompt.

        Args:
            prompts: texts.
            root: folder in which the audit's file will lie; the circuits are named relative to it.
            told: called with how many prompts are done, and of how many.

        Raises:
            SparselitError: a prompt is empty or too long, or has a character that is no token.
        """
        rows = encoded(prompts, self.words, self.model.max_length)
        decisions = []
        for i, (text, tokens) in enumerate(zip(prompts, rows, strict=True), 1):
            decisions.append(self.decision(text, tokens))
            if told is not None:
                told(i, len(rows))
        circuits = [
            Audited(
                file=Path(os.path.relpath(circuit.path.absolute(), root.absolute())).as_posix(),
                sha256=hashlib.sha256(read_bytes(circuit.path)).hexdigest(),
                task=circuit.circuit.task.name,
                rule=solve is not None,
            )
            for circuit, solve in zip(self.circuits, self.solves, strict=True)
        ]
        return Audit(
            model=model_hash(self.model.state_dict()),
            circuits=tuple(circuits),
            thresholds=self.thresholds,
            decisions=tuple(decisions),
            made_on=MadeOn.here(),
        )

    def decision(self, text: str, tokens: Sequence[int]) -> Decision:
        """Account for the model's answer to one prompt.

        Args:
            text: the prompt.
            tokens: its tokens.
        """
        examples = unanswered([tokens])
        logits = self.circuits[0].engine.answers_of(self.model, examples)
        split, pair = self._known(tokens)
        answer = int(logits.argmax())
        rival = pair[1 - pair.index(answer)] if pair and answer in pair else self._runner_up(examples, logits[0])
        right = pair[0] if pair else self._right(tokens)
        examples = examples._replace(answer=torch.tensor([answer]), wrong=torch.tensor([rival]))
        accounts = sorted(
            (self._account(i, examples, logits) for i in range(len(self.circuits))),
            key=lambda account: (_ORDER.index(account.verdict), -sum(c.holds for c in account.conditions)),
        )
        return Decision(
            prompt=text,
            tokens=tuple(self.words[token] for token in tokens),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            answer=self.words[answer],
            rival=self.words[rival],
            margin=_round(logits[0, answer] - logits[0, rival]),
            probability=_round(logits.softmax(-1)[0, answer]),
            right=None if right is None else self.words[right],
            split=split,
            verdict=accounts[0].verdict,
            accounts=tuple(accounts),
        )

    def _known(self, tokens: Sequence[int]) -> tuple[str | None, tuple[int, int] | None]:
        """The split that holds a prompt, with its answer and the wrong one."""
        row, size = torch.tensor(list(tokens)), len(tokens)
        for circuit in self.circuits:
            for name, split in circuit.behaviour.splits.items():
                if split.tokens.shape[1] >= size:
                    same = (split.length == size) & (split.tokens[:, :size] == row).all(1)
                    if bool(same.any()):
                        at = int(same.nonzero()[0])
                        return name, (int(split.answer[at]), int(split.wrong[at]))
        return None, None

    def _runner_up(self, examples: Examples, logits: Tensor) -> int:
        """The strongest other answer of the tasks to which a prompt may belong; where there is none, other token."""
        rest = logits.scatter(0, logits.argmax(), -torch.inf)
        domains = [one.domain for one in self.typicality]
        own = [domain.answers for domain in domains if bool(domain.looks_valid(examples.tokens, examples.length))]
        answers = torch.nn.functional.pad(torch.stack(own or [domains[0].answers]).any(0), (0, len(rest)))[: len(rest)]
        others = rest.masked_fill(~answers, -torch.inf)
        return int((others if bool(others.isfinite().any()) else rest).argmax())

    def _right(self, tokens: Sequence[int]) -> int | None:
        for typicality in self.typicality:
            domain, row = typicality.domain, torch.tensor([list(tokens)])
            length = torch.tensor([len(tokens)])
            if bool(domain.looks_valid(row, length)) and (right := int(domain.right_answers(row, length))) >= 0:
                return right
        return None

    def _account(self, number: int, examples: Examples, full: Tensor) -> Account:
        circuit, typicality, limits = self.circuits[number], self.typicality[number], self.thresholds
        tokens, answer, rival = examples.tokens[0].tolist(), int(examples.answer), int(examples.wrong)
        naive = circuit.naive
        alone = naive.logits(examples)
        outside = naive.keeping(circuit.whole.kept & ~circuit.kept).logits(examples)
        margin, mine, left = (_round(margins(x, examples.answer, examples.wrong)) for x in (full, alone, outside))
        removed = removals(circuit, examples, examples.answer, examples.wrong)
        carried = [
            Carried(
                name,
                _round(mine - removed.circuit[i, 0]),
                _round(margin - removed.full[i, 0]),
                bool(removed.circuit_answer[i, 0] != alone.argmax()),
                bool(removed.full_answer[i, 0] != answer),
            )
            for i, name in enumerate(removed.names)
        ]
        edges, nodes = (_sorted(part) for part in _parted(carried, removed))
        decisive = [e for e in edges if e.flips_circuit or e.circuit >= limits.decisive * abs(mine) > 0]
        confirmed = [e for e in decisive if e.flips_full or e.full >= CONFIRMS * margin]
        place = typicality.of(examples)[0]
        kl = _round(divergence(alone, examples, full))
        lost = 1.0 if int(outside.argmax()) != answer else _round((margin - left) / max(margin, 1e-9))
        typical = min(place.tokens_p, place.inside_p) if not place.unusual else 0.0
        same = float(int(alone.argmax()) == answer)
        conditions = (
            Condition("same answer", same, 1.0, same == 1.0, True),
            Condition("necessary", lost, limits.necessary, lost >= limits.necessary, True),
            Condition("divergence", kl, limits.kl, kl <= limits.kl, False),
            _at_least("margin", mine / max(margin, 1e-9), limits.margin),
            _at_least("confirmed", len(confirmed) / max(1, len(decisive)), limits.confirmed),
            _at_least("typical", typical, limits.typical),
        )
        nearest = int(typicality.reference.stratum[place.nearest])
        return Account(
            circuit=number,
            verdict=_verdict(conditions),
            conditions=conditions,
            answer=self.words[int(alone.argmax())],
            margin=mine,
            kl=kl,
            complement_answer=self.words[int(outside.argmax())],
            complement_margin=left,
            confirmed=(len(confirmed), len(decisive)),
            edges=tuple(edges),
            nodes=tuple(nodes),
            tokens=Flips.of(token_flips(naive, typicality.domain, tokens, answer, rival), self.words),
            activations=tuple(
                Moved(node_name(*flip.node), flip.position, flip.change, flip.deviations, self.words[flip.answer])
                for flip in activation_flips(
                    self.model, tokens, answer, typicality.nodes, typicality.scale.tolist()
                )
            ),
            typical=Place.of(place),
            stratum=circuit.behaviour.strata[nearest],
        )  # fmt: skip


def check(path: Path, oracle: Callable[[Loaded], Oracle | None]) -> tuple[Audit, list[str]]:
    """Recompute an audit from its circuits, their weights and prompts.

    Args:
        path: the audit's file.
        oracle: the rule of a circuit's task.

    Returns:
        The audit as the file has it, and the name of each field whose recomputed value differs.

    Raises:
        SparselitError: a file is missing or cannot be read.
    """
    stated = read_audit(path)
    circuits = [load(path.parent / row.file) for row in stated.circuits]
    if not circuits:
        raise SparselitError(f"{path}: it names no circuit")
    solves = [oracle(circuit) if row.rule else None for circuit, row in zip(circuits, stated.circuits, strict=True)]
    auditor = Auditor(circuits, solves, stated.thresholds)
    again = auditor.audit([decision.prompt for decision in stated.decisions], path.parent)
    return stated, list(_false(stated, again))


def _false(stated: Audit, again: Audit) -> Iterator[str]:
    same = stated.made_on == again.made_on
    for name in ("model", "circuits", "decisions"):
        yield from differences(name, write(getattr(stated, name)), write(getattr(again, name)), same)


def _parted(carried: list[Carried], removed: Removals) -> tuple[list[Carried], list[Carried]]:
    edges = len(carried) - removed.nodes
    return carried[:edges], carried[edges:]


def _sorted(carried: list[Carried]) -> list[Carried]:
    return sorted(carried, key=lambda row: -row.circuit)


def _at_least(name: str, value: float, bound: float) -> Condition:
    return Condition(name, round(value, _DIGITS), bound, value >= bound, False)


def _verdict(conditions: Sequence[Condition]) -> Verdict:
    if not all(condition.holds for condition in conditions if condition.needed):
        return "not explained"
    return "explained" if all(condition.holds for condition in conditions) else "partly explained"


def _round(value: Tensor | float) -> float:
    return round(float(value), _DIGITS)
