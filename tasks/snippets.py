"""Short pieces of Python in pairs: forms with free names, and what they become."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


#: Names of variables, attributes and parameters.
NAMES = _split(
    "name data value key line path text size count index item items result node args source target start end file"
    " files lines values keys state mode type code msg message info options level group token content length"
    " position offset parent child root obj func user host port url query event queue stack buffer total field"
    " fields rows cols first last left right x y z n a b i j k p q t"
)
FUNCTIONS = _split(
    "get read load parse find check make build run update create select write copy call send next format print"
    " add set open close filter match split join reset visit append"
)
WORDS = _split(
    "the of in is not no to for file name value line type error found invalid missing end key read open hello"
    " list empty data test user start module option"
)
#: Lines that may stand before any prompt.
LINES = (
    "{a} = {b}",
    "{a} = {b}.{c}",
    "{a} = {f}({b})",
    "{a} = {b}.{f}({c})",
    "{a} = None",
    "{a} = {n}",
    "self.{a} = {b}",
    "{a} = self.{b}",
    "{a}.{f}({b})",
    "{f}({a}, {b})",
    "{a} -= {n}",
    "del {a}",
)

_SLOT = re.compile(r"\{(\w+)\}")
_SIDES = re.compile(r"«([^|»]*)\|([^»]*)»")


class Snippet:
    """The free parts of one prompt, drawn when a form first names them.

    A form is a text with slots. ``{f}``, ``{g}``: functions; ``{n}``, ``{m}``: numbers; ``{s}``: one to three words,
    drawn anew each time; ``{i}``: the indentation; ``{lines}``: lines before the prompt's own; every other letter is a
    variable. All names of a prompt differ, and its lines have their own.

    Args:
        rng: of all draws.
        names: what the form's variables ``{a}`` and ``{b}`` are called; nothing else is.
        indent: the indentation.
        lines: forms of the lines before, in their order.
    """

    def __init__(self, rng: random.Random, names: Sequence[str], indent: str, lines: Sequence[str]) -> None:
        self._rng, self._names, self._indent, self._lines = rng, names, indent, lines
        self._used: set[str] = set() if names is NAMES else set(names)
        self._bound: dict[str, str] = {"i": indent}

    def fill(self, form: str) -> str:
        """The form with all its slots filled; what decides is still in both versions, as in ``«for|while»``."""
        return _SLOT.sub(lambda match: self._value(match[1], self._bound), form)

    def _value(self, slot: str, bound: dict[str, str]) -> str:
        if slot == "lines":
            return "".join(self._line(line) for line in self._lines)
        if slot == "s":
            return " ".join(self._rng.choices(WORDS, k=self._rng.randint(1, 3)))
        if slot not in bound:
            bound[slot] = self._new(slot, bound is self._bound)
        return bound[slot]

    def _new(self, slot: str, own: bool) -> str:
        if slot in "nm":
            return str(self._rng.randint(0, 20))
        if own and slot in "ab" and self._names is not NAMES:
            return self._rng.choice([name for name in self._names if name not in self._bound.values()])
        pool = FUNCTIONS if slot in "fg" else NAMES
        while (name := self._rng.choice(pool)) in self._used:
            pass
        self._used.add(name)
        return name

    def _line(self, form: str) -> str:
        bound = {"i": self._indent}
        text = _SLOT.sub(lambda match: self._value(match[1], bound), form)
        return "".join(f"{self._indent}{line}\n" for line in text.split("\n"))


def both(text: str) -> tuple[str, str]:
    """The two versions of a text: ``a «for|while» b`` becomes ``a for b`` and ``a while b``."""
    return _SIDES.sub(r"\1", text), _SIDES.sub(r"\2", text)
