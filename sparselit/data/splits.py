"""Disjoint draws of one task: which split a prompt belongs to is a property of the prompt, not of the draw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from sparselit.errors import SparselitError

SplitName = Literal["train", "discovery", "selection", "report"]

#: The splits that nothing is trained on, in the order in which they are used.
HELD_OUT = ("discovery", "selection", "report")
#: Prompts of another kind, for tests only.
SHIFTED = "out_of_distribution"
#: The splits that every circuit's figures come from; the last one is optional.
SPLITS = (*HELD_OUT, SHIFTED)
#: The splits that a trained model is tested on, in the order of the task's dataloaders.
TESTED = ("report", SHIFTED)

#: Draws in a row that bring nothing new before a split counts as exhausted.
PATIENCE = 10_000


class Example(NamedTuple):
    """One prompt of a behaviour, as text that the task's vocabulary cuts into tokens.

    Attributes:
        prompt: the text up to the answer.
        answer: the right next token, one word of the vocabulary.
        wrong: the answer it competes with, another word.
        corrupted: the corrupted prompt: a prompt of the same length, the deciding token changed, for which ``wrong`` is
            right; None where the task has none.
        stratum: which of the task's ``strata`` the prompt belongs to; accuracies are reported for each.

    Examples:
        >>> example = Example("2+3=", answer="5", wrong="6", corrupted="2+4=")
        >>> example.prompt, example.stratum
        ('2+3=', 'all')
    """

    prompt: str
    answer: str
    wrong: str
    corrupted: str | None = None
    stratum: str = "all"


def split_of(family: str, train_share: float) -> SplitName:
    """The split of a family of prompts, the same for every seed, process and machine.

    The training share comes first; discovery, selection and report divide the rest 1 : 1 : 2. A cryptographic hash
    and not a CRC: a CRC is linear in the bits, so that its buckets of bit strings would be planes and not a draw.

    Args:
        family: the text that is hashed.
        train_share: share of the families that is trained on, in (0, 1).
    """
    fraction = int.from_bytes(hashlib.blake2b(family.encode(), digest_size=4).digest(), "big") / 2**32
    if fraction < train_share:
        return "train"
    rest = (fraction - train_share) / (1 - train_share)
    return "discovery" if rest < 0.25 else "selection" if rest < 0.5 else "report"


class Splits:
    """The splits of one sequence of examples, filled on demand.

    Each split is the first so many different prompts of the sequence that hash into it, whichever is drawn first. An
    example whose corrupted prompt would fall into another split is left out (the sequence may offer the prompt again
    with another one), so that splits are disjoint by prompt and by corrupted prompt.

    Args:
        source: the examples, possibly without end.
        family: text that decides the split of a prompt.
        check: raises where an example is broken.
        sizes: most prompts per split; None takes all there are.
        train_share: share of the families that is trained on, in (0, 1).
        name: the method that examples come from, for messages.
    """

    def __init__(
        self,
        source: Iterator[Example],
        family: Callable[[str], str],
        check: Callable[[str, Example], None],
        sizes: dict[SplitName, int | None],
        train_share: float,
        name: str,
    ) -> None:
        self._source, self._family, self._check = source, family, check
        self._sizes, self._train_share, self._name = sizes, train_share, name
        self._found: dict[SplitName, dict[str, Example]] = {split: {} for split in sizes}
        self._last = dict.fromkeys(sizes, 0)  # the draw that brought the split's newest prompt
        self._closed: set[SplitName] = set()
        self._drawn = 0

    def draw(self, split: SplitName) -> list[Example]:
        """The examples of ``split`` in the order in which they were drawn; empty where the domain holds none."""
        while split not in self._closed:
            example = next(self._source, None)
            if example is None:
                self._closed.update(self._sizes)
                break
            self._drawn += 1
            self._offer(example)
            if self._drawn - self._last[split] >= PATIENCE:
                self._closed.add(split)
        return list(self._found[split].values())

    def _offer(self, example: Example) -> None:
        split = self.assign(example)
        if split is None or split in self._closed:
            return
        if self._drawn - self._last[split] > PATIENCE:  # exhausted while another split was being filled
            self._closed.add(split)
            return
        found = self._found[split]
        known = found.get(example.prompt)
        if known is None:
            self._check(self._name, example)
            found[example.prompt] = example
            self._last[split] = self._drawn
            if len(found) == self._sizes[split]:
                self._closed.add(split)
        elif known.answer != example.answer:
            raise two_answers(self._name, known, example)

    def assign(self, example: Example) -> SplitName | None:
        """The split of an example; None where its corrupted prompt belongs to another one."""
        family = self._family(example.prompt)
        split = split_of(family, self._train_share)
        if example.corrupted is None:
            return split
        corrupted = self._family(example.corrupted)
        same = corrupted == family or split_of(corrupted, self._train_share) == split
        return split if same else None


def different(draw: Callable[[], Example | None], n: int, usable: Callable[[Example], bool]) -> list[Example]:
    """Up to ``n`` usable examples with different prompts, in the order in which they were drawn.

    Args:
        draw: gives an example, or None where there are none.
        n: how many.
        usable: which may be taken.
    """
    found: dict[str, Example] = {}
    misses = 0
    while len(found) < n and misses < PATIENCE and (example := draw()) is not None:
        if example.prompt not in found and usable(example):
            found[example.prompt], misses = example, 0
        else:
            misses += 1
    return list(found.values())


def shuffled_domain(domain: list[Example], seed: int, name: str) -> Iterator[Example]:
    """A finite domain in a random order that is a function of ``seed``; a prompt with two answers is an error.

    Args:
        domain: all examples.
        seed: of the order.
        name: the method that they come from, for messages.

    Raises:
        SparselitError: a prompt has two answers.
    """
    answers: dict[str, Example] = {}
    for example in domain:
        known = answers.setdefault(example.prompt, example)
        if known.answer != example.answer:
            raise two_answers(name, known, example)
    return iter(random.Random(f"domain {seed}").sample(domain, len(domain)))


def mirror(example: Example) -> Example:
    """The corrupted prompt as an example of its own, whose corrupted prompt is ``example``."""
    if example.corrupted is None:
        raise SparselitError(f"a mirrored task needs a corrupted prompt for every prompt; {example.prompt!r} has none")
    return Example(example.corrupted, example.wrong, example.answer, example.prompt, example.stratum)


def with_mirrors(source: Iterator[Example]) -> Iterator[Example]:
    """Every example of ``source``, each followed by its mirror image."""
    for example in source:
        yield example
        yield mirror(example)


def two_answers(name: str, one: Example, other: Example) -> SparselitError:
    """The error for a prompt whose answer is not a function of the prompt.

    Args:
        name: the method that the examples come from.
        one: the first example.
        other: one of the same prompt with another answer.
    """
    return SparselitError(
        f"{name} gives two answers for the prompt {one.prompt!r}: {one.answer!r} and {other.answer!r}"
    )
