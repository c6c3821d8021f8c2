"""Whether a task measures what it says: solvable, balanced, without leaks, and not to be had by a simpler rule."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from sparselit.data.baselines import baseline_accuracies, visible_accuracy
from sparselit.data.contract import guarded
from sparselit.data.splits import HELD_OUT, SHIFTED, Example
from sparselit.data.task import Task

#: A simple rule gives a task away where it gets more than this share of the way from chance to the optimum.
GIVEN_AWAY = 0.5
#: The name of the check for answers that stand in the prompt, among the baselines.
VISIBLE = "answer visible"


@dataclass(frozen=True)
class Soundness:
    """What was found out about one task.

    Attributes:
        chance: accuracy of guessing among the answers, in (0, 1).
        optimum: best possible accuracy.
        accuracies: of each simple rule, on held-out prompts.
        n: number of those.
        verified: corrupted prompts whose answer is known by other means than the example, and was compared.
        corrupted: all of them.
        faults: what is wrong, one line each; empty for a sound task.
        excused: rules that give the task away by its own definition, and why.
    """

    chance: float
    optimum: float
    accuracies: Mapping[str, float]
    n: int
    verified: int
    corrupted: int
    faults: tuple[str, ...]
    excused: Mapping[str, str]


def examine(task: Task) -> Soundness:
    """Check a task on its own splits.

    Args:
        task: the task; its splits are drawn, so that small ones save time.

    Raises:
        SparselitError: the task breaks its contract.
    """
    drawn = {name: _texts(task, name) for name in ("train", *HELD_OUT, SHIFTED)}
    examples = [example for name, found in drawn.items() for example in found if name != SHIFTED]
    everything = [example for found in drawn.values() for example in found]
    answers = Counter(example.answer for example in examples)
    chance, report = task.chance, task.split("report")
    accuracies = baselines(task)
    given = given_away(task, accuracies)
    truth = _Truth(task, everything)
    verified, corrupted_faults = truth.corrupted(everything)
    faults = [
        *_repeatable(task),
        *truth.faults,
        *corrupted_faults,
        *_balanced(answers, len(examples)),
        *_leaks(task, drawn),
        *(
            f"by_definition names {name!r}, which is no check: {', '.join(accuracies)}"
            for name in task.by_definition
            if name not in accuracies
        ),
    ]
    for name, accuracy in given.items():
        if name not in task.by_definition:
            faults.append(f"{name}: this alone gets {100 * accuracy:.1f} % of held-out prompts right")
    return Soundness(
        chance,
        task.optimum,
        accuracies,
        len(report.answer),
        verified,
        sum(example.corrupted is not None for example in everything),
        tuple(faults),
        {name: task.by_definition[name] for name in given if name in task.by_definition},
    )


def baselines(task: Task) -> dict[str, float]:
    """What each simple rule scores on a task's report split, in [0, 1]."""
    train, report = task.split("train"), task.split("report")
    return {**baseline_accuracies(train, report, task.vocab_size), VISIBLE: visible_accuracy(report)}


def given_away(task: Task, accuracies: Mapping[str, float]) -> dict[str, float]:
    """Those of the simple rules that give a task away, by its definition or not.

    Args:
        task: the task.
        accuracies: of each rule.
    """
    chances = {name: _chance(name, task.chance) for name in accuracies}
    return {
        name: accuracy
        for name, accuracy in accuracies.items()
        if (accuracy - chances[name]) / (task.optimum - chances[name]) > GIVEN_AWAY
    }


def shortcut(task: Task) -> str | None:
    """The best simple rule that gives a task away although the task is not about it, in one line; None without one."""
    given = {rule: share for rule, share in given_away(task, baselines(task)).items() if rule not in task.by_definition}
    if not given:
        return None
    best = max(given, key=given.__getitem__)
    return f"the task has a shortcut: {best} alone gets {100 * given[best]:.1f} % of held-out prompts right"


def _chance(name: str, chance: float) -> float:
    return 0.5 if name == VISIBLE else chance  # that rule chooses between two candidates


def _texts(task: Task, split: str) -> list[Example]:
    """A split as text; a corrupted prompt that equals its prompt is none."""
    examples = task.split(split)
    if examples is None:
        return []
    text, found = task.tokenizer.decode, []
    for tokens, length, answer, wrong, corrupted, stratum in zip(*(f.tolist() for f in examples), strict=True):
        prompt, other = (text(row[:length]) for row in (tokens, corrupted))
        found.append(
            Example(prompt, text([answer]), text([wrong]), None if other == prompt else other, task.strata[stratum])
        )
    return found


class _Truth:
    """The right answers of prompts: by the task's ``solve``, and as its examples say."""

    def __init__(self, task: Task, examples: list[Example]) -> None:
        self.task = task
        self.known: dict[str, str] = {}
        self.faults: list[str] = []
        for example in examples:
            known = self.known.setdefault(example.prompt, example.answer)
            solved = self._solve(example.prompt)
            if known != example.answer and not self.faults:
                self.faults.append(f"two answers for the prompt {example.prompt!r}: {known!r} and {example.answer!r}")
            elif solved not in (None, example.answer) and not self.faults:
                self.faults.append(
                    f"the answer to {example.prompt!r} is {example.answer!r}, and solve() says {solved!r}"
                )

    def corrupted(self, examples: list[Example]) -> tuple[int, list[str]]:
        """How many corrupted prompts were compared, and the first one for which ``wrong`` is not right."""
        verified, faults = 0, list[str]()
        for example in examples:
            if example.corrupted is not None:
                right = self._solve(example.corrupted) or self.known.get(example.corrupted)
                verified += right is not None
                if right not in (None, example.wrong) and not faults:
                    text = f"the corrupted prompt {example.corrupted!r} of {example.prompt!r} does not flip the answer"
                    faults.append(f"{text} to {example.wrong!r}: its own is {right!r}")
        return verified, faults

    def _solve(self, prompt: str) -> str | None:
        return guarded(f"{type(self.task).__name__}.solve()", lambda: self.task.solve(prompt))


def _repeatable(task: Task) -> Iterator[str]:
    """A fault where ``sample`` depends on more than its generator."""
    if type(task).sample is not Task.sample:
        method = f"{type(task).__name__}.sample()"
        one, other = (guarded(method, lambda: task.sample(random.Random(7))) for _ in range(2))
        if one != other:
            yield f"{method} gives {one!r:.80} and {other!r:.80} for the same generator"


def _balanced(answers: Counter[str], n: int) -> Iterator[str]:
    """A fault where one answer is much more frequent than its share; small samples may deviate by four errors."""
    fair = 1 / max(len(answers), 2)
    (answer, count) = answers.most_common(1)[0]
    if count / n > 1.25 * fair + 4 * (fair * (1 - fair) / n) ** 0.5:
        yield f"the answer {answer!r} is right for {100 * count / n:.1f} % of the prompts, not {100 * fair:.1f} %"


def _leaks(task: Task, drawn: Mapping[str, list[Example]]) -> Iterator[str]:
    """A fault for each two splits that share a prompt, a corrupted one or a family; strange prompts only as prompts."""
    texts = {
        name: {text for example in found for text in (example.prompt, example.corrupted) if text is not None}
        for name, found in drawn.items()
    }
    strange = {example.prompt for example in drawn[SHIFTED]}
    families = {name: {task.family(text) for text in texts[name]} for name in ("train", *HELD_OUT)}
    for one, other in combinations(("train", *HELD_OUT), 2):
        for kind, of in (("prompt", texts), ("family", families)):
            if shared := of[one] & of[other]:
                yield f"the splits {one} and {other} share {len(shared):,} {kind}s, such as {min(shared)!r}"
                break
    if shared := texts["train"] & strange:
        yield f"the splits train and out_of_distribution share {len(shared):,} prompts, such as {min(shared)!r}"
