"""Tasks on Python whose answer follows from a keyword: the kind of a line, of a block or of an expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from .python_task import PythonTask

_WITH = "with {f}({a}) as {b}:\n    {c} = {b}"
_FOR = "for {a} in {b}:\n    {c}.{f}({a})"
_WHILE = "while {a}:\n    {a} = {b}.{f}({a})"
_IF = "if {a}:\n    {b} = {c}"
_DECIDES = "the keyword decides, and it stands at the beginning of a short line"


def _keyword(*checks: str) -> Mapping[str, str]:
    return dict.fromkeys(checks or ("fixed position", "bag of characters"), _DECIDES)


def _first_word(prompt: str) -> str:
    """The first word of the last line."""
    return prompt.rpartition("\n")[2].split()[0]


class WithAs(PythonTask):
    """What follows a call: ``with load(path)`` → `` as``, and ``if load(path)`` → `` and``.

    After the paper's ``with_as``. Out of distribution lines before it hold both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" as", " and")
    decides = r"\b(?:with|if)\b"
    words = ("with", "if")
    forms = tuple(
        f"{{lines}}{{i}}«with|if» {call}"
        for call in ("{f}({a})", "self.{f}({a})", "{a}.{f}({b})", "{f}({a}, {b})", "{a}.{f}()", "self.{a}.{f}({b})")
    )
    distractors = (_WITH, "if {f}({a}) and {b}:\n    {c} = {a}")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return " as" if _first_word(prompt) == "with" else " and"


class WithOpen(PythonTask):
    r"""What a function opens: ``def f(path):\n    with`` → `` open``, and ``def f(self):\n    with`` → `` self``.

    After the paper's ``with_open``: a path is opened, and a method goes on with something of its object, as in
    ``with self.lock:``. Out of distribution more lines stand between the two.

    Args:
        kwargs: arguments of every task.
    """

    names = ("path", "file", "filename", "name", "source", "target", "url", "output")
    answers = (" open", " self")
    decides = r"\(\w+\):"
    words = (*names, "self")
    indents = ("    ",)
    forms = tuple(
        f"{before}def {{f}}(«{{a}}|self»):\n{{lines}}    with"
        for before in (
            "",
            "def {g}(«self|{a}»):\n    return {c}\n\n\n",
            "def {g}(self):\n    return {c}\n\n\n",
            "def {g}({a}):\n    return {c}\n\n\n",
        )
    )
    by_definition: ClassVar[Mapping[str, str]] = _keyword("fixed position", "bag of characters")

    def solve(self, prompt: str) -> str:
        """By the last function's parameter."""
        return " self" if re.findall(r"\((\w+)\):", prompt)[-1] == "self" else " open"


class ForWhile(PythonTask):
    r"""How a loop goes on: ``for item`` → `` in``, and ``while item`` → ``:\n``.

    After the paper's ``for_while``. Out of distribution lines before it hold loops of both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" in", ":\n")
    decides = r"\b(?:for|while)\b"
    words = ("for", "while")
    forms = ("{lines}{i}«for|while» {a}",)
    distractors = (_FOR, _WHILE)
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return " in" if _first_word(prompt) == "for" else ":\n"


class ElseElif(PythonTask):
    r"""What follows the word: ``if isinstance(x, int):\n    y = x\nelse`` → ``:\n``, and ``elif`` → `` isinstance``.

    After the paper's ``else_elif``, whose prompts are known to end with the word in question. Out of
    distribution there are more branches and lines.

    Args:
        kwargs: arguments of every task.
    """

    answers = (":\n", " isinstance")
    decides = r"\bel(?:se|if)\b"
    words = ("else", "elif")
    forms = tuple(
        f"{{lines}}{{i}}if isinstance({{a}}, {kind}):\n{{i}}    {body}\n{{i}}«else|elif»"
        for kind in ("str", "int", "list", "dict", "bytes", "tuple")
        for body in ("return {a}", "{b} = {a}", "{b} = {f}({a})", "{a} = {a}.{f}()", "return {f}({a})")
    )
    strange = tuple(
        "{lines}{i}if isinstance({a}, str):\n{i}    {b} = {a}\n{i}elif isinstance({a}, " + kind + "):\n"
        "{i}    {b} = {f}({a})\n{i}«else|elif»"
        for kind in ("int", "list", "dict", "bytes", "tuple")
    )
    by_definition = _keyword("last token", "fixed position", "bag of characters")

    def solve(self, prompt: str) -> str:
        """By the last word."""
        return ":\n" if prompt.endswith("else") else " isinstance"


class IfTernary(PythonTask):
    r"""Whether a condition is part of an expression: ``return x if y`` → `` else``, and ``if x and y`` → ``:\n``.

    After the paper's ``if_ternary``. Out of distribution lines before it hold both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" else", ":\n")
    decides = r"\b(?:return|if|and|is|not|None)\b|[= ]"
    words = ("return", "if", "and", "is", "not", "=", "None")
    forms = tuple(
        f"{{lines}}{{i}}{sides} {rest}"
        for sides in (
            "«return {a} if|if {a} and»",
            "«return {a}.{c} if|if {a}.{c} and»",
            "«{a} = None if|if {a} is not»",
        )
        for rest in ("{b}", "{b}.{d}", "self.{b}")
    )
    distractors = (_IF, "{a} = {b} if {c} else {d}", "if {a} and {b}:\n    {c} = {d}")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return ":\n" if _first_word(prompt) == "if" else " else"


class IfEquals(PythonTask):
    r"""Whether a name is compared or set: ``if name`` → `` ==``, and ``self.name`` → `` =``.

    After the paper's ``if_equals``. Out of distribution lines before it hold both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" ==", " =")
    decides = r"\bif |\bself\."
    words = ("if ", "self.")
    forms = tuple(
        f"{{lines}}{{i}}«if |self.»{name}" for name in ("{a}", "{a}.{b}", "{a}[{n}]", "{a}.{b}[{n}]", "{a}.{b}.{c}")
    )
    distractors = ("if {a} == {b}:\n    {c} = {b}", "self.{a} = {b}", "if {a}:\n    self.{b} = {c}")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return " ==" if _first_word(prompt) == "if" else " ="


class IndentFor(PythonTask):
    r"""How deep the body of a loop is: four spaces more than its first line.

    After the paper's ``indent_for``. ``    for x in y:\n`` → ``       ``, and
    ``        for x in y:\n`` → ``           ``: a word takes the last space before it, so that the answers are seven
    and eleven spaces. Out of distribution more lines of both depths stand before the loop.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" " * 7, " " * 11)
    decides = r" +"
    words = (" " * 3,)
    indents = ("    ",)
    forms = tuple(
        f"{{lines}}    {block}:\n        {body}\n«    |        »for {header}:\n"
        for block in ("if {c}", "with {c}.{d}", "while {c}", "for {c} in {d}")
        for body in ("{e} = {b}", "{e}.{f}({b})", "{e} = {f}({b})\n        {h} = {e}")
        for header in ("{a} in {b}", "{a} in {b}.{o}", "{a} in range({n})", "{a}, {o} in {b}")
    )
    distractors = (_IF, "if {a}:\n    {b} = {c}\n    {d} = {b}")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """The indentation of the last line, and three."""
        line = prompt.splitlines()[-1]
        return " " * (len(line) - len(line.lstrip()) + 3)


class WhileReturnTrue(PythonTask):
    r"""What follows ``True``: ``while True`` → ``:\n``, and ``return True`` → ``\n``.

    After the paper's ``while_return_true``. Out of distribution lines before it hold both words.

    Args:
        kwargs: arguments of every task.
    """

    answers = (":\n", "\n")
    decides = r"\b(?:while|return)\b"
    words = ("while", "return")
    forms = (
        "{lines}{i}«while|return» True",
        "{lines}{i}if {a}:\n{i}    «while|return» True",
        "{lines}{i}if {a} == {b}:\n{i}    «while|return» True",
        "{lines}{i}if {a} in {b}:\n{i}    «while|return» True",
        "{lines}{i}{a} = {f}({b})\n{i}«while|return» True",
    )
    distractors = (_WHILE, "if {a}:\n    return {b}", "while True:\n    {a}.{f}({b})", "if {a}:\n    return True")
    by_definition = _keyword("fixed position", "bag of characters", "answer visible")

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return ":\n" if _first_word(prompt) == "while" else "\n"


class LambdaFunc(PythonTask):
    r"""How parameters end: ``key = lambda x`` → ``:``, and ``def key(x`` → ``):\n``.

    After the paper's ``lambda_func``. Out of distribution lines before it hold both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (":", "):\n")
    decides = r"\bdef | = lambda |\("
    words = ("def ", "(", " =", " lambda ")
    pieces = (" lambda",)
    forms = tuple(
        f"{{lines}}{{i}}«{{a}} = lambda |def {{a}}(»{rest}" for rest in ("{b}", "{b}, {c}", "{b}, {c}", "{b}, {c}, {d}")
    )
    strange = ("{lines}{i}«{a} = lambda |def {a}(»{b}, {c}", "{lines}{i}«{a} = lambda |def {a}(»{b}, {c}, {d}, {e}")
    distractors = ("{a} = lambda {b}: {b}.{c}", "def {f}({a}):\n    return {a}.{b}")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the line's first word."""
        return "):\n" if _first_word(prompt) == "def" else ":"


class EnumerateRange(PythonTask):
    r"""What a loop counts: ``x = y\nfor i, z in`` → `` enumerate``, and ``x, z = y\nfor i in`` → `` range``.

    After the paper's ``enumerate_range``. The corrupted prompt moves a variable from the loop to the line before. Out
    of distribution lines before it hold both kinds.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" enumerate", " range")
    decides = r", \w+"
    names = ("i", "j", "k", "n", "x", "index", "count", "pos")
    forms = tuple(
        f"{{lines}}{{i}}{{c}}«|, {{d}}» = {value}\n{between}{{i}}for {{a}}«, {{d}}|» in"
        for value in ("{e}.{f}({h})", "{f}({e})", "self.{f}({e})", "{f}({e}, {h})")
        for between in ("", "{i}{o} = {e}\n", "{i}self.{o} = {e}\n")
    )
    distractors = ("for {a}, {b} in {c}:\n    {d} = {b}", "for {a} in {b}:\n    {c} = {a}", "{a}, {b} = {c}")
    by_definition = _keyword("fixed position")

    def solve(self, prompt: str) -> str:
        """Whether the loop has one variable or two."""
        return " enumerate" if "," in prompt.rpartition("\n")[2] else " range"


class ClassInit(PythonTask):
    r"""The first function of a block: ``class timer(base):\n    def`` → `` __``.

    And ``def timer(base):\n    def`` → `` f``. After the paper's ``class_init``: the first method of a class is
    ``__init__``, whose name begins with the token ``__``; a function that opens another function is called ``f``, the
    commonest name there in real code. Out of distribution more lines stand before it.

    Args:
        kwargs: arguments of every task.
    """

    answers = (" __", " f")
    decides = r"\b(?:class|def)\b"
    words = ("class", "def")
    indents = ("    ",)
    forms = tuple(
        f"{before}«class|def» {name}({base}):\n{{lines}}    def"
        for before in ("", "def {g}({c}):\n    return {c}\n\n\n", "class {g}({c}):\n    pass\n\n\n")
        for name in ("timer", "cached", "retry", "{f}", "timeout", "logged", "check", "option")
        for base in ("func", "base", "object", "method", "fn")
    )
    distractors = ("{a} = {n}", "{a} = None", "{a} = {b}", "{a} = {f}({b})")
    by_definition = _keyword()

    def solve(self, prompt: str) -> str:
        """By the first word of the last line that is not indented."""
        return " __" if re.findall(r"^(\w+)", prompt, re.MULTILINE)[-1] == "class" else " f"
