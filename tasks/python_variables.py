"""Tasks on Python whose answer follows from what a name stands for, or from where it stood before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from .python_task import PythonTask

_TYPES = ('«set()|""»', '«""|set()»')
_USES = ("{i}for {d} in {e}:\n{i}    {a}", "{i}if {d}:\n{i}    {a}", "{i}{a}")


class SetOrString(PythonTask):
    r"""What is done to a variable: ``x = set()\ny = ""\nx`` → ``.add``, and ``x = ""\ny = set()\nx`` → `` +=``.

    After the paper's ``set_or_string``. Either one variable is a set or a string, or two are, so that only the binding
    of name and type decides; the corrupted prompt exchanges the types. Out of distribution there are always two, and
    more lines.

    Args:
        kwargs: arguments of every task.
    """

    answers = (".add", " +=")
    decides = r"set\(\)|\"\""
    words = ("set()", '""')
    strange = tuple(
        start + use
        for start in (
            f"{{i}}{{a}} = {_TYPES[0]}\n{{i}}{{b}} = {_TYPES[1]}\n{{lines}}",
            f"{{i}}{{b}} = {_TYPES[1]}\n{{lines}}{{i}}{{a}} = {_TYPES[0]}\n",
        )
        for use in _USES
    )
    forms = (
        *(f"{{i}}{{a}} = {_TYPES[0]}\n{{lines}}{use}" for use in _USES),
        *(f"{{i}}{{b}} = {_TYPES[1]}\n{{i}}{{a}} = {_TYPES[0]}\n{{lines}}{use}" for use in _USES),
        *strange,
    )
    distractors = ("{a} = []", "{a} = {}", "{a} = {n}", "{a} = None")

    def solve(self, prompt: str) -> str:
        """The value in the assignment to the last name."""
        name = prompt.split()[-1]
        values: list[str] = re.findall(rf"^ *{name} = (.*)$", prompt, re.MULTILINE)
        return {"set()": ".add", '""': " +="}[values[-1]]


class SetOrStringFixedvarname(SetOrString):
    r"""As ``SetOrString``, of a fixed name: ``current = set()\ncurrent`` → ``.add``.

    After the paper's ``set_or_string_fixedvarname``: the variable in question is always ``current``.

    Args:
        kwargs: arguments of every task.
    """

    forms = tuple(form.replace("{a}", "current") for form in SetOrString.forms)
    strange = tuple(form.replace("{a}", "current") for form in SetOrString.strange)


class VarSwap(PythonTask):
    r"""The other variable of an exchange: ``if x > y:\n    x, y = y,`` → `` x``, and ``    y, x = x,`` → `` y``.

    After the paper's ``var_swap``. Ten names, any two of them. Out of distribution more lines stand before it.

    Args:
        kwargs: arguments of every task.
    """

    names = ("a", "b", "x", "y", "i", "j", "start", "end", "first", "last")
    answers = (" {a}", " {b}")
    forms = tuple(
        f"{{lines}}{{i}}{before}«{{a}}, {{b}} = {{b}}|{{b}}, {{a}} = {{a}}»,"
        for before in (
            "",
            "if {a} > {b}:\n{i}    ",
            "if {b} < {a}:\n{i}    ",
            "while {a} > {b}:\n{i}    ",
            "if {c}:\n{i}    ",
            "{d} = {a}\n{i}",
            "{d} = {b}\n{i}",
        )
    )
    by_definition: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("fixed position", "bag of characters"), "an exchange has one form, and its first name comes last"
    )

    def family(self, prompt: str) -> str:
        """Both orders of the two names stay together."""
        names = rf"\b(?:{'|'.join(self.names)})\b"
        return " ".join([re.sub(names, "", prompt), *sorted(set(re.findall(names, prompt)))])

    def solve(self, prompt: str) -> str:
        """The first name of the last line."""
        return " " + prompt.rpartition("\n")[2].split(",")[0].strip()


class VarIf(PythonTask):
    r"""The variable that a condition is about: ``if path is None:\n       `` → `` path``.

    After the paper's ``var_if``: a parameter is tested and then set. Eight names, any two of them; the corrupted prompt
    tests the other parameter. Out of distribution more lines stand before the condition.

    Args:
        kwargs: arguments of every task.
    """

    names = ("name", "path", "value", "data", "key", "size", "text", "line")
    answers = (" {a}", " {b}")
    decides = r"\bif (?:not )?\w+"
    indents = ("    ",)
    forms = tuple(
        f"def {{f}}(self, {{a}}, {{b}}):\n{{lines}}{before}    if {test}:\n       "
        for before in ("", "    {c} = {a}\n", "    {c} = {b}\n")
        for test in (
            "«{a}|{b}» is None",
            "not «{a}|{b}»",
            "«{a}|{b}» == {n}",
            "«{a}|{b}» in {d}",
            "«{a}|{b}» == {d}.{e}",
        )
    )
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": "the tested variable occurs once more"}

    def solve(self, prompt: str) -> str:
        """The first name of the last condition."""
        return " " + re.findall(r"if (?:not )?(\w+)", prompt)[-1]


class FinalKwarg(PythonTask):
    r"""Whether a keyword argument is the last: ``def f(z, x):\n    g(x=x`` → ``)\n``.

    And ``def f(x, z):\n    g(x=x`` → ``,``. After the paper's ``final_kwarg``. A call hands parameters on in their
    order, perhaps not all; it ends with the last of them. The corrupted prompt exchanges two parameters. Out of
    distribution there are more parameters and lines.

    Args:
        kwargs: arguments of every task.
    """

    answers = (")\n", ",")
    indents = ("    ",)
    forms = tuple(
        f"def {{f}}({parameters}):\n{{lines}}    {call}{{g}}({handed}"
        for parameters, handed in (
            ("«{c}, {a}|{a}, {c}»", "{a}={a}"),
            ("{a}, «{c}, {b}|{b}, {c}»", "{a}={a}, {b}={b}"),
            ("self, «{c}, {a}|{a}, {c}»", "{a}={a}"),
            ("{d}, «{c}, {b}|{b}, {c}»", "{d}={d}, {b}={b}"),
        )
        for call in ("return ", "{e} = ", "self.{e} = ", "")
    )
    strange = (
        "def {f}({a}, {d}, «{c}, {b}|{b}, {c}»):\n{lines}    return {g}({a}={a}, {d}={d}, {b}={b}",
        "def {f}(self, {a}, {d}, {e}, «{c}, {b}|{b}, {c}»):\n{lines}    {g}({a}={a}, {d}={d}, {e}={e}, {b}={b}",
    )

    def family(self, prompt: str) -> str:
        """All orders of the parameters stay together."""
        return re.sub(r"\((.*)\):", lambda match: " ".join(sorted(match[1].split(", "))), prompt)

    def solve(self, prompt: str) -> str:
        """Whether the last name is the last parameter."""
        parameters = re.findall(r"def \w+\((.*)\):", prompt)[-1].split(", ")
        return ")\n" if prompt.rpartition("=")[2] == parameters[-1] else ","
