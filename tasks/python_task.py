"""What the twenty tasks on Python have in common: a pair of prompts from one form, cut well by the tokenizer in use."""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError

from .snippets import LINES, NAMES, Snippet, both

_CHARACTERS = ("\n", *map(chr, range(32, 127)))
_TRIES = 2000  # draws before a tokenizer counts as one that cuts no prompt of the task well


class PythonTask(Task):
    """Which of two tokens goes on with a piece of Python.

    A subclass writes forms (``tasks/snippets.py`` explains them); both versions of a form are prompts of the task and
    each is the other's corrupted prompt. By default characters are tokens, and so are the answers and ``words``; a
    byte-pair encoding can be set as ``tokenizer``. A pair is drawn again where that tokenizer gives the two prompts
    different lengths, or does not cut a prompt with its answer into the prompt's tokens and one more: a language model
    has never seen such a cut. Out of distribution more lines stand before the prompt, most of them distractors.

    Attributes:
        answers: next token of a form's first version, and of its second one.
        words: further tokens of the task's own vocabulary, so that both versions have the same length.
        pieces: what another tokenizer should have as one token as well, for the same reason.
        forms: what the prompts are made of.
        strange: forms for prompts out of distribution; empty takes ``forms``.
        distractors: lines that hold what decides, of a place where it does not.
        names: what the variables in question are called.
        indents: indentations of the prompt's lines.
        decides: pattern of what decides, wherever it stands: both versions are the same text without it.

    Args:
        kwargs: arguments of every task.
    """

    mirrored = True
    max_length = 320
    answers: ClassVar[tuple[str, str]]
    words: ClassVar[tuple[str, ...]] = ()
    pieces: ClassVar[tuple[str, ...]] = ()
    forms: ClassVar[tuple[str, ...]]
    strange: ClassVar[tuple[str, ...]] = ()
    distractors: ClassVar[tuple[str, ...]] = ()
    names: ClassVar[tuple[str, ...]] = NAMES
    indents: ClassVar[tuple[str, ...]] = ("    ", "        ")
    decides: ClassVar[str]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary = list(dict.fromkeys([*_CHARACTERS, *self.possible_answers(), *self.words]))

    @classmethod
    def possible_answers(cls) -> tuple[str, ...]:
        """Every answer of the task; a tokenizer must have each as one token."""
        return tuple(dict.fromkeys(re.sub(r"\{\w\}", name, answer) for answer in cls.answers for name in cls.names))

    def sample(self, rng: random.Random) -> Example:
        """Up to two lines, and the one in question."""
        return self._draw(rng, self.forms, rng.choice((0, 0, 1, 1, 2)), 0.5)

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """Three to five lines before it, most of them distractors."""
        return self._draw(rng, self.strange or self.forms, rng.randint(3, 5), 0.8)

    def family(self, prompt: str) -> str:
        """The prompt without what decides, so that both versions stay together."""
        return re.sub(self.decides, "", prompt)

    def pair(self, rng: random.Random, form: str, lines: list[str]) -> tuple[Example, Example]:
        """The two versions of a form, each an example.

        Args:
            rng: of all draws.
            form: one of the forms.
            lines: forms of the lines before.
        """
        snippet = Snippet(rng, self.names, rng.choice(self.indents), lines)
        text, *answers = snippet.fill("\0".join((form, *self.answers))).split("\0")
        (one, other), (answer, wrong) = both(text), answers
        return Example(one, answer, wrong, other), Example(other, wrong, answer, one)

    def _draw(self, rng: random.Random, forms: tuple[str, ...], lines: int, share: float) -> Example:
        """A pair that the tokenizer cuts well, in either order; a share of the lines before it are distractors."""
        for _ in range(_TRIES):
            before = [
                rng.choice(self.distractors if self.distractors and rng.random() < share else LINES)
                for _ in range(lines)
            ]
            one, other = self.pair(rng, rng.choice(forms), before)
            if self._is_cut_well(one, other):
                return rng.choice((one, other))
        split = [answer for answer in (one.answer, one.wrong) if len(self.tokenizer.words(answer)) != 1]
        fault = (
            f"cuts the answer {split[0]!r} into several tokens"
            if split
            else f"cuts no pair of {_TRIES:,} into equal lengths and an answer, such as {one.prompt!r}"
        )
        raise SparselitError(
            f"{self._name}: the tokenizer {fault};"
            f" its vocabulary needs {', '.join(map(repr, (one.answer, one.wrong, *self.pieces)))} as one token each"
        )

    def _is_cut_well(self, one: Example, other: Example) -> bool:
        """Whether both prompts have as many tokens, and each with its answer one more."""
        encode = self.tokenizer.encode
        try:
            cut = [encode(example.prompt) for example in (one, other)]
            if not len(cut[0]) == len(cut[1]) <= self.max_length:
                return False
            return all(
                len(answer := encode(example.answer)) == 1
                and encode(example.prompt + example.answer) == prompt + answer
                for example, prompt in zip((one, other), cut, strict=True)
            )
        except KeyError:
            return False
