"""An audit in words: one decision on a page, and a model's decisions under the headings that a reviewer looks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.evidence.flags import FLAGS
from sparselit.circuits.use.audit import Audit, Decision
from sparselit.circuits.use.audit.record import Account, Condition
from sparselit.report.document import Block, Heading, Paragraph, Points, Table, code
from sparselit.report.facts import counted, interval_text, percent, size_text
from sparselit.report.story import node_words

#: What each condition means, and what its value is, in the order of the verdict.
CONDITIONS = {
    "same answer": "the circuit alone gives the model's answer",
    "necessary": "share of the model's margin that is lost without the circuit (all, where the answer flips)",
    "divergence": "divergence of the circuit's next-token distribution from the model's (nats)",
    "margin": "the circuit's margin as a share of the model's",
    "confirmed": "decisive edges that the full model cannot do without either, as a share",
    "typical": "p-value of being like the certified prompts (0: it has something that none of them has)",
}
_MEANS = {
    "explained": "Every condition holds: on this prompt the circuit is what decides.",
    "partly explained": "The circuit gives the answer and the model needs it, but a condition fails: trust ends there.",
    "not explained": "The circuit does not account for this answer. It says nothing about why the model gave it.",
}
_SHOWN = 12
_NEVER = (
    "This document states measurements and how to repeat them. It is no declaration of conformity and claims no"
    " compliance with any law."
)
#: This document's headings beside points of Annex IV of Regulation (EU) 2024/1689 and of Model Cards (Mitchell 2019).
_MAPPING = (
    ("System and purpose", "1, 2(b), 2(c)", "Model details, intended use"),
    ("Data", "2(d)", "Training data, evaluation data"),
    ("Training", "2(a), 2(c)", "Model details, training data"),
    ("Performance by kind of prompt", "2(g), 4", "Factors, metrics, quantitative analyses"),
    ("Decisions accounted for", "2(g), 3", "Quantitative analyses"),
    ("Capabilities and limits", "3", "Caveats and recommendations"),
    ("Foreseeable failure", "3, 5 (in part)", "Caveats and recommendations"),
    ("Human oversight: when to distrust", "2(e), 3", "Caveats and recommendations"),
    ("Changes", "2(f), 6", "Model details"),
    ("Evidence and reproduction", "2(g)", "Model details"),
    ("not covered here", "2(h), 7, 8, 9", "Ethical considerations"),
)


def decision_blocks(audit: Audit, decision: Decision, circuits: Sequence[Circuit], level: int = 1) -> list[Block]:
    """One decision.

    Args:
        audit: which holds it.
        decision: what was decided.
        circuits: the records of the audit's circuits.
        level: of its heading.
    """
    right = "" if decision.right is None else f"; right is {code(decision.right)}"
    known = f"It stands in the {decision.split} split." if decision.split else "It stands in no split of the circuits."
    best = decision.accounts[0]
    blocks: list[Block] = [
        Heading(level, f"Decision: {code(decision.prompt)} → {code(decision.answer)}"),
        Paragraph(f"Verdict: {decision.verdict}. {_MEANS[decision.verdict]}"),
        Paragraph(
            f"The model answers {code(decision.answer)} with probability {decision.probability:.4f}, by a margin of"
            f" {decision.margin:.4f} logits over {code(decision.rival)}{right}. {known}"
        ),
    ]
    if len(decision.accounts) > 1:
        rows = [_line(audit, account) for account in decision.accounts]
        blocks += [Heading(level + 1, "Which circuit carried it"), Table(_LINE, tuple(rows))]
    blocks += _account(audit, decision, best, circuits[best.circuit], level + 1)
    return blocks


_LINE = ("circuit", "verdict", "circuit answers", "divergence", "the model without it answers", "margin then")


def _line(audit: Audit, account: Account) -> tuple[str, ...]:
    return (
        f"{audit.circuits[account.circuit].task}",
        account.verdict,
        code(account.answer),
        f"{account.kl:.4f}",
        code(account.complement_answer),
        f"{account.complement_margin:+.4f}",
    )


def _account(audit: Audit, decision: Decision, account: Account, circuit: Circuit, level: int) -> Iterator[Block]:
    yield Heading(level, f"Where trust ends: the circuit of {audit.circuits[account.circuit].task}")
    yield Table(
        ("condition", "value", "bound", "holds"),
        tuple(
            (CONDITIONS[c.name], f"{c.value:.4f}", _bound(c), "yes" if c.holds else "NO") for c in account.conditions
        ),
    )
    confirmed, decisive = account.confirmed
    yield Heading(level, "What carried it")
    yield Paragraph(
        f"Margin lost when one part alone is removed from the circuit, and from the full model. Of"
        f" {counted(decisive, 'decisive edge')} the full model confirms {confirmed}."
    )
    head = ("part", "in the circuit", "in the full model", "flips")
    for name, rows in (("edge or bias", account.edges), ("node", account.nodes)):
        shown = [row for row in rows if row.circuit > 0 or row.flips_circuit][:_SHOWN]
        yield Table(
            (name, *head[1:]),
            tuple(
                (_part(circuit, row.part), f"{row.circuit:+.4f}", f"{row.full:+.4f}",
                 {(True, True): "both", (True, False): "circuit", (False, True): "model"}.get(
                     (row.flips_circuit, row.flips_full), "-"))
                for row in shown
            ),
        )  # fmt: skip
    yield Heading(level, "What would have flipped it")
    yield from _flips(account)
    place = account.typical
    yield Heading(level, "How typical the prompt is")
    yield Paragraph(
        f"Nearest discovery prompt: {counted(place.tokens, 'token')} differ (p {place.tokens_p:.3f}); the circuit's"
        f" nodes {place.inside:.3f} standard deviations away (p {place.inside_p:.3f}), of kind {account.stratum}."
    )
    if place.unusual:
        rate = percent(place.unusual_share, 1)
        yield Points(tuple(f"unusual: {code(text)} (so is {rate} of held-out prompts)" for text in place.unusual))


def _bound(condition: Condition) -> str:
    return f"{'≤' if condition.name == 'divergence' else '≥'} {condition.bound:g}"


def _part(circuit: Circuit, name: str) -> str:
    site, _, channel = name.rpartition(":")
    return f"{code(name)} {node_words(circuit, (site, int(channel)))}" if site and channel.isdigit() else code(name)


def _flips(account: Account) -> Iterator[Block]:
    found = account.tokens
    text = f"With {counted(found.changed, 'token')} changed, {found.flipped} of {found.tried:,} prompts of the task's"
    text += " form are answered otherwise."
    if found.changed == 2:
        text += " No single change does it; of two, only the most promising were tried."
    if found.justified is not None and found.missed is not None:
        text += f" {found.justified} of them have that other answer by the task's rule."
        text += f" {found.missed} have another right answer and are answered as before."
    yield Paragraph(text)
    if found.flips:
        yield Table(
            ("prompt", "answered", "right"), tuple(tuple(code(t) if t else "?" for t in f) for f in found.flips)
        )
    if account.activations:
        rows = tuple(
            (code(m.node), str(m.position), f"{m.change:+.4f}", f"{m.deviations:.2f}", code(m.answer))
            for m in account.activations
        )
        yield Table(("node, full model", "position", "change", "standard deviations", "answered"), rows)
    else:
        yield Paragraph("No single node at one position flips it within eight standard deviations.")


def model_blocks(audit: Audit, circuits: Sequence[Circuit]) -> list[Block]:
    """A model's decisions, under the headings of :data:`_MAPPING`.

    Args:
        audit: over some prompts.
        circuits: the records of its circuits.
    """
    sections: dict[str, list[Block]] = {
        "System and purpose": _system(circuits),
        "Data": _data(circuits),
        "Training": _training(circuits),
        "Performance by kind of prompt": _performance(circuits),
        "Decisions accounted for": _decisions(audit),
        "Capabilities and limits": _limits(circuits),
        "Foreseeable failure": _failure(audit),
        "Human oversight: when to distrust": _oversight(audit),
        "Changes": [
            Paragraph("The files name no edit of this model. An edit is a file of its own: `sparselit repair`.")
        ],
        "Evidence and reproduction": _evidence(audit),
    }
    blocks: list[Block] = [Heading(1, "Audit of a model"), Paragraph(_NEVER)]
    for title, content in sections.items():
        blocks += [Heading(2, title), *content]
    blocks += [
        Heading(2, "Which part answers which question"),
        Table(("heading", "Annex IV of Regulation (EU) 2024/1689, points", "Model Cards"), _MAPPING),
    ]
    for decision in audit.decisions:
        if decision.verdict == "not explained":
            blocks += [Heading(2, "A decision that is not explained"), *decision_blocks(audit, decision, circuits, 3)]
            break
    return blocks


def _system(circuits: Sequence[Circuit]) -> list[Block]:
    config = circuits[0].model.config
    return [
        Paragraph(
            f"A decoder transformer of {counted(config['n_layers'], 'layer')} with {config['n_heads']} heads,"
            f" {config['d_model']} channels and {config['vocab_size']} tokens. It predicts the next token; it was"
            " looked at on these tasks only:"
        ),
        Points(tuple(f"{c.task.name}: a circuit of {size_text(*_size(c))}" for c in circuits)),
    ]


def _size(circuit: Circuit) -> tuple[int, int, int]:
    return circuit.size.edges, circuit.size.nodes, circuit.size.free


def _data(circuits: Sequence[Circuit]) -> list[Block]:
    rows = tuple(
        (c.task.name, split, f"{file.n:,}", code(file.sha256[:16]))
        for c in circuits
        for split, file in c.task.splits.items()
    )
    return [
        Paragraph(
            "Splits are disjoint and none was trained on. Discovery chose the circuits, report gives the figures."
        ),
        Table(("task", "split", "prompts", "SHA-256 begins"), rows),
    ]


def _training(circuits: Sequence[Circuit]) -> list[Block]:
    corpus = circuits[0].task.corpus
    return [
        Paragraph(
            "The circuits' files do not hold how the model was trained. The run's `config.yaml` and `result.json` do,"
            " where the run's folder was handed over too."
            + (f" The texts that it was trained on have the hash {code(corpus[:16])}." if corpus else "")
        )
    ]


def _performance(circuits: Sequence[Circuit]) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    for c in circuits:
        scores = {"all, full model": c.evidence.full_model, "all, circuit": c.evidence.held_out}
        scores |= {f"{kind}, circuit": score for kind, score in c.evidence.held_out.strata.items()}
        if c.evidence.out_of_distribution:
            scores["out of distribution, circuit"] = c.evidence.out_of_distribution
        rows += [
            (c.task.name, kind, percent(s.accuracy), interval_text(s.accuracy_interval), f"{s.n:,}")
            for kind, s in scores.items()
        ]
    return [Table(("task", "kind", "right", "95 % interval", "n"), tuple(rows))]


def _decisions(audit: Audit) -> list[Block]:
    n = len(audit.decisions)
    shares = tuple(
        (verdict, str(count), percent(count / n), interval_text(ends))
        for verdict, (count, ends) in audit.shares().items()
    )
    rows = tuple(
        (
            code(d.prompt),
            code(d.answer),
            "?" if d.right is None else "yes" if d.right == d.answer else "NO",
            d.verdict,
            audit.circuits[d.accounts[0].circuit].task,
            ", ".join(c.name for c in d.accounts[0].conditions if not c.holds) or "-",
        )
        for d in audit.decisions
    )
    return [
        Table(("verdict", "decisions", "share", "95 % interval"), shares),
        Table(("prompt", "answer", "right", "verdict", "circuit", "conditions that fail"), rows),
    ]


def _limits(circuits: Sequence[Circuit]) -> list[Block]:
    texts = []
    for c in circuits:
        texts.append(
            f"{c.task.name}: {percent(c.evidence.unexplained, 1)} of the loss is explained by no known circuit."
        )
        texts += [f"{c.task.name}: {FLAGS.get(flag, flag)}" for flag in c.evidence.flags or ()]
    texts.append("Circuits say nothing of prompts of other kinds than those of their splits.")
    return [Points(tuple(texts))]


def _failure(audit: Audit) -> list[Block]:
    wrong = [d for d in audit.decisions if d.right not in (None, d.answer)]
    flips = [flip for d in audit.decisions for flip in d.accounts[0].tokens.flips if flip[2] and flip[1] != flip[2]]
    missed = sum(d.accounts[0].tokens.missed or 0 for d in audit.decisions)
    blocks: list[Block] = [
        Paragraph(
            f"Of these decisions {len(wrong)} are wrong by the tasks' rules. Among prompts one or two tokens"
            f" away, at least {len(flips)} more are answered wrongly after a change, and {missed} keep an answer that"
            " is no longer right."
        )
    ]
    rows = [("audited", code(d.prompt), code(d.answer), code(d.right or "")) for d in wrong]
    rows += [("near one", code(prompt), code(answer), code(right)) for prompt, answer, right in flips]
    return [*blocks, Table(("where", "prompt", "answered", "right"), tuple(rows[:_SHOWN]))] if rows else blocks


def _oversight(audit: Audit) -> list[Block]:
    limits = audit.thresholds
    return [
        Paragraph("Distrust an answer, and let a person decide, where one of these holds:"),
        Points(
            (
                "the circuit alone gives another answer, or the model keeps most of its margin without it",
                f"the circuit's distribution is more than {limits.kl:g} nats away, or its margin below"
                f" {percent(limits.margin, 0)} of the model's",
                f"less than {percent(limits.confirmed, 0)} of the decisive edges matter in the full model",
                f"the prompt is unlike the certified ones (p below {limits.typical:g}), or has what none of them has",
            )
        ),
    ]


def _evidence(audit: Audit) -> list[Block]:
    files = " ".join(row.file for row in audit.circuits)
    return [
        Table(
            ("circuit", "task", "rule known", "SHA-256"),
            tuple((code(r.file), r.task, "yes" if r.rule else "no", code(r.sha256)) for r in audit.circuits),
        ),
        Points(
            (
                f"model: {code(audit.model)}",
                "every claim of a circuit: `sparselit verify CIRCUIT`",
                "every number of this audit: `sparselit verify AUDIT.json`",
                f"made by `sparselit audit {files}`",
            )
        ),
    ]
