"""Closing quotes: after ``name = 'hello`` comes ``'``."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, SparselitError, check_range, check_whole

from .literals import standard_library_literals

_Source = Literal["python", "synthetic"]
_SWAP = str.maketrans("'\"", "\"'")
_LETTERS = " " + string.ascii_lowercase + ",=()_"
_LINKS = (" = ", "(", "=", ", ", ", key=", " in ")


class Quotes(Task):
    """Which quote closes the string: ``name = 'hello`` → ``'``, and ``name = "don't`` → ``"``.

    The line before the opening quote, its position (uniform over the first ``length - 6``) and the content vary. Each
    prompt comes with its corrupted prompt, in which ``'`` and ``"`` are exchanged everywhere. Stratum ``distractor``:
    the content holds the other quote once, so that only their order decides; out of distribution it does 2 to 4 times.

    ``python`` cuts one prompt from each usable string literal of the running interpreter's standard library, mostly
    where the literal ends. Few real literals hold the other quote (about 5 in 100), so a share ``distractors`` of the
    rest gets one at a random position. ``synthetic`` makes lines of random letters.

    Args:
        source: python (real literals) or synthetic (random strings).
        distractors: share of the prompts that get the other quote put into their content, in [0, 1].
        length: tokens in the longest prompt, at least 24.
        kwargs: arguments of every task.
    """

    strata = ("plain", "distractor")
    mirrored = True
    by_definition: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("bag of characters", "answer visible"), "without a distractor only one kind of quote occurs, as in the paper"
    )

    def __init__(self, source: _Source = "python", distractors: float = 0.25, length: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if source not in ("python", "synthetic"):
            raise SparselitError(f"data.source must be python or synthetic, got {source!r}")
        check_range("data.distractors", distractors, 0, 1)
        check_whole("data.length", length, 24, most=LONGEST)
        self.source, self.distractors, self.max_length = source, distractors, length
        self.vocabulary = [chr(i) for i in range(32, 127)] if source == "python" else [*_LETTERS, "'", '"']

    def examples(self) -> Iterable[Example] | None:
        """One prompt per real literal; None for random strings, of which there is no end."""
        rng = random.Random(f"literals {self.seed}")
        return _real_prompts(rng, self.distractors, self.max_length) if self.source == "python" else None

    def sample(self, rng: random.Random) -> Example:
        """A line of random letters."""
        before, text = _random_line(rng, rng.randrange(self.max_length - 6), 2, 10)
        others = int(rng.random() < self.distractors)
        return _example("'", before, _content(rng, text, others, self.max_length - len(before) - 1))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """A line whose content holds the other quote two to four times."""
        line = _real_line if self.source == "python" else _random_line
        before, text = line(rng, rng.randrange(self.max_length - 12))
        content = _content(rng, text, rng.randint(2, 4), self.max_length - len(before) - 1)
        return _example(rng.choice("'\""), before, content)

    def family(self, prompt: str) -> str:
        """A prompt and its corrupted one stay together."""
        return min(prompt, prompt.translate(_SWAP))

    def solve(self, prompt: str) -> str:
        """The first quote."""
        return next(character for character in prompt if character in "'\"")


def _real_prompts(rng: random.Random, distractors: float, length: int) -> Iterator[Example]:
    """One prompt per literal of the standard library, opened by ``'``."""
    literals = standard_library_literals()
    # Short lines are frequent: a position is drawn the more often, the fewer lines reach it, and stays uniform.
    starts = range(length - 6)
    reach = [sum(len(before) >= start for before, _ in literals) for start in starts]
    weights = [1 / lines if lines else 0.0 for lines in reach]
    for before, text in literals:
        start = rng.choices(starts, weights)[0]
        if start <= len(before):
            text = text if rng.random() < 0.75 else text[: rng.randint(1, len(text))]
            others = 1 if '"' in text else int(rng.random() < distractors)
            yield _example("'", before[len(before) - start :], _content(rng, text, others, length - start - 1))


def _real_line(rng: random.Random, opening: int) -> tuple[str, str]:
    """At most ``opening`` characters before a literal of the standard library, and its content."""
    before, text = rng.choice(standard_library_literals())
    return before[max(0, len(before) - opening) :], text


def _random_line(rng: random.Random, opening: int, shortest: int = 8, longest: int = 16) -> tuple[str, str]:
    """Text of ``opening`` characters before a string, and ``shortest`` to ``longest`` characters inside it."""
    length = rng.randint(shortest, longest)
    name = "".join(rng.choices(_LETTERS, k=opening)) + rng.choice(_LINKS)
    return name[len(name) - opening :], "".join(rng.choices(_LETTERS, k=length))


def _content(rng: random.Random, text: str, others: int, room: int) -> str:
    """``text`` cut to ``room`` characters, in which ``"`` stands exactly ``others`` times."""
    text = '"'.join(text.split('"')[: others + 1])[: room - others]
    while text.count('"') < others:
        start = rng.randint(0, len(text))
        text = text[:start] + '"' + text[start:]
    return text


def _example(quote: str, before: str, content: str) -> Example:
    """The example whose string is opened by ``quote``; ``content`` is written for a string in ``'``."""
    other = quote.translate(_SWAP)
    prompt = f"{before}'{content}"
    prompt, corrupted = (prompt, prompt.translate(_SWAP)) if quote == "'" else (prompt.translate(_SWAP), prompt)
    return Example(prompt, quote, other, corrupted, "distractor" if '"' in content else "plain")
