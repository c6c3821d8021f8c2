"""Tasks on Python whose answer closes what is open: quotes, braces and brackets."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

from sparselit.data.task import Example

from .python_task import PythonTask

_COUNTED = "what is open was opened once more than it was closed"


class SingleDoubleQuote(PythonTask):
    r"""Which quote closes the string: ``name = 'not found`` → ``'\n``, and ``name = "not found`` → ``"\n``.

    After the paper's ``single_double_quote``. A string that ends its line is closed by a quote and a newline, which are
    one token. Lines before it hold closed strings of either kind. Out of distribution the string also holds the other
    quote, once or twice.

    Args:
        kwargs: arguments of every task.
    """

    answers = ("'\n", '"\n')
    decides = r"['\"]"
    forms = (
        "{lines}{i}{a} = «'|\"»{s}",
        "{lines}{i}self.{a} = «'|\"»{s}",
        "{lines}{i}{a} += «'|\"»{s}",
        "{lines}{i}return «'|\"»{s}",
    )
    strange = ("{lines}{i}{a} = «'|\"»{s} «\"|'»{s}", "{lines}{i}return «'|\"»{s} «\"|'»{s}«\"|'» {s}")
    distractors = ("{a} = '{s}'", '{a} = "{s}"', "{a} = {f}('{s}')", '{a} = {f}("{s}")')
    by_definition: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("bag of characters", "answer visible"), "the open quote is the one that occurs an odd number of times"
    )

    def solve(self, prompt: str) -> str:
        """The first quote of the last line."""
        return next(character for character in prompt.rpartition("\n")[2] if character in "'\"") + "\n"


class FstringBrace(PythonTask):
    r"""Whether a brace of an f-string is open: ``x = f"no {key`` → ``}``, and ``x = f"no in key`` → ``"\n``.

    After the paper's ``fstring_brace``. In the corrupted prompt a word stands for the brace. Out of distribution there
    are two closed pairs of braces before it.

    Args:
        kwargs: arguments of every task.
    """

    answers = ("}", '"\n')
    decides = r"\{|\}|\b(?:in|of|for) "
    words = ("in ", "of ", "for ")
    forms = tuple(
        f'{{lines}}{{i}}{start}f"{{s}}{closed} «{{|{word} »{{b}}{rest}'
        for start in ("{a} = ", "return ", "self.{a} = ")
        for closed in ("", " {{c}}", " {{c}} {s}")
        for word in ("in", "of", "for")
        for rest in ("", ".{d}")
    )
    strange = tuple(
        f'{{lines}}{{i}}{{a}} = f"{{s}} {{{{c}}}} {{s}} {{{{d}}}} {{s}} «{{|{word} »{{b}}'
        for word in ("in", "of", "for")
    )
    distractors = ('{a} = f"{s} {{b}} {s}"', '{a} = "{s}"', '{a} = f"{{b}}"')
    by_definition: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("fixed position", "bag of characters"), f"{_COUNTED}, at one of few distances"
    )

    def solve(self, prompt: str) -> str:
        """Open less closed braces of the last line."""
        line = prompt.rpartition("\n")[2]
        return "}" if line.count("{") > line.count("}") else '"\n'


class BracketCounting(PythonTask):
    r"""How many brackets close the list: ``x = [[1, 2], [3, 4`` → ``]]\n``, and ``x = [[1, 2], 3, 4`` → ``]\n``.

    After the paper's ``bracket_counting``. Where a vocabulary holds ``[[`` as one token, the corrupted prompt is also a
    flat list of the same numbers. Out of distribution lists are longer.

    Args:
        kwargs: arguments of every task.
    """

    answers = ("]]\n", "]\n")
    decides = r"[\[\]]"
    words = (" [", " [[", ", ", "], ", "], [")
    pieces = (" [[",)
    forms = ("{lines}{i}{a} = ", "{lines}{i}self.{a} = ", "{lines}{i}return ", "{lines}{i}{a}.{c} = ")
    distractors = ("{a} = [{n}, {m}]", "{a} = [[{n}, {m}]]", "{a} = [[{n}], [{m}]]", "{a} = {b}[{n}]")
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": _COUNTED}

    def pair(self, rng: random.Random, form: str, lines: list[str]) -> tuple[Example, Example]:
        """A list of rows of numbers, whose last row or whose rows lose their brackets."""
        longest = (1, 3) if len(lines) < 3 else (4, 6)
        rows = [[str(rng.randint(0, 20)) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(*longest))]
        *first, last = (", ".join(row) for row in rows)
        if first and rng.random() < 0.5:
            text = "[[" + "], [".join(first) + "], «[|»" + last
        else:
            text = "«[[|[»" + "«], [|, »".join([*first, last])
        return super().pair(rng, form + text, lines)

    def solve(self, prompt: str) -> str:
        """Open less closed brackets of the last line."""
        line = prompt.rpartition("\n")[2]
        return "]" * (line.count("[") - line.count("]")) + "\n"


class BracketBrace(PythonTask):
    r"""Which bracket is open: ``x = [1, y, 2`` → ``]\n``, and ``x = {1, y, 2`` → ``}\n``.

    After the paper's ``bracket_brace``: a list or a set. Lines before it hold closed brackets of either kind, and items
    may be tuples. Out of distribution the list is longer, and an item is itself a list or a set.

    Args:
        kwargs: arguments of every task.
    """

    answers = ("]\n", "}\n")
    decides = r"[\[\]{}]"
    forms = tuple(
        f"{{lines}}{{i}}{start}«[|{{»{items}"
        for start in ("{a} = ", "self.{a} = ", "return ")
        for items in ("{n}, {m}", "{c}, {d}", "{n}, {c}, {m}", "({c}, {n}), {d}", "{c}.{d}, {e}", "{c}", "{c}, {n}")
    )
    strange = (
        "{lines}{i}{a} = «[|{»{b}, «{|[»{n}, {m}«}|]», {c}",
        "{lines}{i}{a} = «[|{»{b}, [{n}, {m}], {c}, {d}",
        "{lines}{i}{a} = «[|{»{b}, {c}, ({n}, {m}), {d}, {e}, {h}",
    )
    distractors = ("{a} = []", "{a} = {}", "{a} = [{b}, {n}]", "{a} = {{b}, {c}}", "{a} = {b}[{n}]", "{a} = {{b}: {n}}")
    by_definition: ClassVar[Mapping[str, str]] = dict.fromkeys(("bag of characters", "answer visible"), _COUNTED)

    def solve(self, prompt: str) -> str:
        """The bracket that was opened last and is not closed."""
        open_ones: list[str] = []
        for character in prompt.rpartition("\n")[2]:
            if character in "[{":
                open_ones.append(character)
            elif character in "]}":
                open_ones.pop()
        return {"[": "]\n", "{": "}\n"}[open_ones[-1]]
