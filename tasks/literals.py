"""String literals of the running interpreter's standard library, each with the line before it."""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_text
from sparselit.runs.cache import cache_folder
from sparselit.runs.plain_file import read_json

_FORMAT = 1  # of the cache file; raise it whenever the rules below change
#: Tests, other people's packages, and the tables of the codecs, which are 256 nearly equal lines each.
_EXCLUDED = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "encodings", "pydoc_data"}
_LITERAL = re.compile(r"[A-Za-z]*(['\"])(.+)\1")
#: Python >= 3.12 gives f-strings (and >= 3.14 t-strings) as a start, a middle and an end.
_STARTS = {getattr(tokenize, name, -1) for name in ("FSTRING_START", "TSTRING_START")} - {-1}
_ENDS = {getattr(tokenize, name, -1) for name in ("FSTRING_END", "TSTRING_END")} - {-1}


@cache
def standard_library_literals() -> list[tuple[str, str]]:
    """Every usable literal as (line before it with the prefix letters, content), in order of file and line.

    The contents are written for a string in ``'``: where the source uses ``"``, the two quotes are exchanged.

    Usable are ordinary single-line literals, not empty, of printable ASCII without a backslash, whose line holds no
    quote before them. The first call tokenizes the library (a few seconds) and keeps the result in the user's
    cache folder.
    """
    root = Path(sysconfig.get_path("stdlib"))
    file = _cache_file(root)
    with suppress(OSError, ValueError, KeyError, TypeError):  # unreadable, or not ours: made anew
        kept = read_json(file)
        if kept["complete"] is True and all(map(_is_entry, kept["literals"])):
            return [(before, content) for before, content in kept["literals"]]
    literals = [literal for path in _files(root) for literal in literals_of(path)]
    if not literals:
        raise SparselitError(f"no Python source lies in {root}; use data.source: synthetic")
    with suppress(OSError):
        write_text(file, json.dumps({"literals": literals, "complete": True}))
    return literals


def literals_of(path: Path) -> Iterator[tuple[str, str]]:
    """The usable literals of one file; a file that does not tokenize gives those before the fault.

    Args:
        path: a Python source file.
    """
    depth, begin = 0, (0, 0)  # of nested f-strings; row and column where the outermost one began
    with suppress(OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError), path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type in _STARTS:
                depth += 1
                begin = begin if depth > 1 else token.start
            elif token.type in _ENDS:
                depth -= 1
            if depth == 0 and (token.type == tokenize.STRING or token.type in _ENDS):
                start = begin if token.type in _ENDS else token.start
                literal = _parse(token.line, start[1], token.end[1]) if start[0] == token.end[0] else None
                if literal is not None:
                    yield literal


def _parse(line: str, first: int, last: int) -> tuple[str, str] | None:
    """The literal in columns ``first`` to ``last`` of a physical line, if it is usable."""
    text, before = line[first:last], line[:first]
    match = _LITERAL.fullmatch(text)
    if match is None or "\n" in line[:last] or re.search(r"['\"\\#]", before) or "\\" in text:
        return None
    quote, content = match.groups()
    if quote in content or not (before + text).isascii() or not (before + text).isprintable():
        return None
    return before + text[: match.start(1)], content if quote == "'" else content.replace("'", '"')


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _EXCLUDED)
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def _cache_file(root: Path) -> Path:
    version = ".".join(map(str, sys.version_info[:3]))
    checksum = zlib.crc32(str(root).encode())
    return cache_folder() / f"literals-{sys.implementation.name}-{version}-{checksum:08x}-{_FORMAT}.json"


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
