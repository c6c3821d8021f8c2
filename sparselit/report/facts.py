"""Facts in words: here, and only here, shares, intervals, sizes and long texts become what a person reads.

A criterion in words is :meth:`sparselit.circuits.criterion.Bound.__str__`. Nothing heavy is imported here.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Literal

WIDTH = 80  # columns of the terminal


def visible(text: str) -> str:
    """A text whose control and format characters are escapes, so that a terminal or a page only shows it.

    That is what the Unicode standard calls Cc (but line feed and tab), Cf (such as those that turn the direction of
    writing), Cs, Zl and Zp.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c not in "\n\t" and unicodedata.category(c) in _HIDDEN else c for c in text)


_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def percent(share: float, digits: int = 2) -> str:
    """A share in [0, 1] as ``97.50 %``.

    Args:
        share: in [0, 1].
        digits: after the point.
    """
    return f"{100 * share:.{digits}f} %"


def interval_text(ends: Sequence[float], dash: str = "-") -> str:
    """An interval of shares as ``97.00 - 98.00 %``.

    Args:
        ends: lower and upper end, in [0, 1].
        dash: what stands between them.
    """
    low, high = ends
    return f"{100 * low:.2f} {dash} {percent(high)}"


def size_text(edges: float, nodes: int, free: int) -> str:
    """The size of a circuit as ``22 edges, 15 nodes, 9 free``.

    Args:
        edges: weights and biases kept.
        nodes: pairs of site and channel.
        free: parameters that stay without being edges.
    """
    return f"{edges:,} edges, {nodes:,} nodes, {free:,} free"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things as ``1 search`` and ``2 searches``.

    Args:
        number: how many.
        noun: one of them.
        plural: several of them; default with an ``s``.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def unit_of(granularity: str) -> str:
    """What a search of a granularity removes as one, in a word."""
    return "edge" if granularity == "weight" else granularity


def listed(words: Sequence[str]) -> str:
    """Words as ``a, b and c``."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def shortened(text: str, width: int, keep: Literal["begin", "end"] = "end") -> str:
    """At most ``width`` characters of a text, with an ellipsis for what is left out.

    Args:
        text: any.
        width: characters, at least 1.
        keep: which part stays; names differ at their end.
    """
    if len(text) <= width:
        return text
    return f"…{text[len(text) - width + 1 :]}" if keep == "end" else f"{text[: width - 1]}…"


def hanging(start: str, text: str, width: int = WIDTH, whole_words: bool = False) -> list[str]:
    """A text after ``start``, its further lines below its first.

    Args:
        start: what the first line begins with.
        text: any.
        width: columns in all.
        whole_words: do not break words, such as paths, that are longer than a line.
    """
    room = width - len(start)
    first, *more = textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=not whole_words) or [""]
    return [f"{start}{first}".rstrip(), *(" " * len(start) + line for line in more)]
