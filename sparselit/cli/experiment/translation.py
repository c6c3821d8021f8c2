"""The parser's errors, which list every type that did not fit, in one line that says what to change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pydoc import ErrorDuringImport, locate

from jsonargparse import ArgumentParser

from sparselit.cli.experiment.keys import CLASS_KEYS
from sparselit.errors import suggestion

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_UNKNOWN = re.compile(r"(?:Option|accept option) '([^']+)'|unrecognized arguments: (.+)")
_REQUIRED = re.compile(
    r"(?:the following arguments are required|Missing required): (.+)|Key \"?([\w.]+)\"? is required"
)
_NO_MODULE = re.compile(r"(- )?(No module named|cannot import|module .* has no)")
_OUTSIDE_BRACKETS = re.compile(r", (?![^\[]*\])")
_TYPE = re.compile(r"<class '([^']+)'>")


def translate(message: str, command: str, options: Iterable[str]) -> str:
    """One line for a message of jsonargparse.

    Args:
        message: as the parser reports it, many lines.
        command: the subcommand, whose name prefixes some keys.
        options: all keys that the command has, dotted, for a did-you-mean.
    """
    options = list(options)
    leaf = _Leaf(message, command)
    if leaf.unknown is not None:
        return _unknown(leaf, options)
    if match := _REQUIRED.search(message):
        keys = [key.strip().removeprefix(f"{command}.") for key in (match[1] or match[2]).split(",")]
        if keys[0].startswith("data"):
            return "data is missing: name a task, as in --data Quotes (see `sparselit tasks`)"
        prefix = f"{leaf.key}: " if leaf.key else ""
        return f"{prefix}{', '.join(keys)} must be given"
    if leaf.missing_module:
        return f"{leaf.key}: {leaf.class_path!r} cannot be imported: {leaf.missing_module}"
    if leaf.types and leaf.given is not None:
        return _wrong_type(leaf)
    if match := re.search(r"Expected an? (.+?)\. Got value: (.*)", message):
        return f"{leaf.key}: expected {type_words(match[1])}, got {_brief(match[2])!r}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    lines = [line for line in lines if not _KEY.fullmatch(line.rstrip(":"))]
    text = " ".join(lines[:2]) if lines else message
    return f"{leaf.key}: {text}" if leaf.key and leaf.key not in text else text


class _Leaf:
    """The line of a nested message that matters, found by following the first problem inwards."""

    def __init__(self, message: str, command: str) -> None:
        self.keys: list[tuple[int, str]] = []
        self.class_path: str | None = None
        self.unknown: str | None = None
        self.positional = False
        self.missing_module: str | None = None
        self.class_name: str | None = None  # a short name that no imported class has
        self.types: list[str] = []
        self.given: str | None = None
        best_depth = -1
        stack: list[tuple[int, str, str]] = []
        for line in message.splitlines():
            text = line.strip()
            depth = len(line) - len(line.lstrip(" -"))
            if not text:
                continue
            if not text.startswith(("Given value", "Subtypes", "Errors:", "- Does not", "Does not")):
                while stack and stack[-1][0] >= depth:
                    stack.pop()
            if match := _KEY.search(text):
                stack.append((depth, "key", match[1]))
                if depth > best_depth and self.unknown is None:
                    best_depth, self.types, self.given = depth, [], None
                    self._settle(stack)
            elif match := _CLASS.search(text):
                stack.append((depth, "class", match[1]))
            elif self.unknown is None and (match := _UNKNOWN.search(text)):
                word = match[1] or match[2].split()[0]
                self.positional = not match[1] and not word.startswith("-")
                self.unknown = word.lstrip("-").split("=")[0]
                self._settle(stack)
            elif self.missing_module is None and re.match(
                r"(- )?(No module named|cannot import|module .* has no)", text
            ):
                self.missing_module = text.lstrip("- ")
                self._settle(stack)
            elif self.class_name is None and (match := re.search(r"Expected a dot import path string: (\S+)", text)):
                self.class_name = match[1]
            elif text.startswith("Subtypes:") and self.unknown is None and not self.types:
                self.types = _OUTSIDE_BRACKETS.split(text.removeprefix("Subtypes:").strip()[1:-1])
            elif text.startswith("Given value:") and self.given is None:
                self.given = text.removeprefix("Given value:").strip()
            elif self.unknown is None and (match := re.search(r"Expected an? (.+?)\. Got value: (.*)", text)):
                self.types, self.given = [match[1]], match[2]
                self._settle(stack)
                best_depth = 10**6
        self.key = ".".join(key.removeprefix(f"{command}.") for _, key in self.keys)

    def _settle(self, stack: list[tuple[int, str, str]]) -> None:
        self.keys = [(depth, name) for depth, kind, name in stack if kind == "key"]
        classes = [name for _, kind, name in stack if kind == "class"]
        self.class_path = classes[-1] if classes else None


def _unknown(leaf: _Leaf, options: list[str]) -> str:
    name = leaf.unknown or ""
    if leaf.class_path is None:
        if leaf.positional:
            return f"unexpected argument {name!r}"
        parent, _, last = name.rpartition(".")
        elsewhere = [option for option in options if option.rpartition(".")[2] == name]
        if elsewhere:
            return f"unknown key {name!r}; did you mean {elsewhere[0]!r}?"
        siblings = [option.rpartition(".")[2] for option in options if option.rpartition(".")[0] == parent]
        if siblings:
            hint = suggestion(last, siblings)
            return f"unknown key {name!r}{hint.replace(chr(39), chr(39) + parent + '.', 1) if parent else hint}"
        tops = sorted({option.partition(".")[0] for option in options})
        return f"unknown key {name!r}{suggestion(name.partition('.')[0], tops)}"
    short = leaf.class_path.rpartition(".")[2]
    known = class_arguments(leaf.class_path)
    where = f"{leaf.key}." if leaf.key else ""
    if short in ("Optimizer", "LRScheduler", "ReduceLROnPlateau"):
        return f"{leaf.key}: name a class first, as in --{leaf.key} {'AdamW' if short == 'Optimizer' else 'StepLR'}"
    if short in ("Sparsifier", "Callback", "LightningDataModule", "LightningModule", "Task"):
        known_classes = ", ".join(sorted(subclass_names(leaf.class_path, ours=True)))
        return f"{leaf.key}: name a class_path first: {known_classes}"
    hint = suggestion(name, known)
    if not hint and 0 < len(known) <= 8:
        hint = f"; it has {', '.join(known)}"
    elif not hint and leaf.key in CLASS_KEYS:
        hint = f"; --{leaf.key}.help {short} lists them"
    return f"{where}{name}: {short} has no such argument{hint}"


def _wrong_type(leaf: _Leaf) -> str:
    types = [_TYPE.sub(r"\1", kind) for kind in leaf.types if "NoneType" not in kind]
    given = "null" if leaf.given == "None" else repr(_brief((leaf.given or "").strip("'")))
    bases = [base for kind in types if (base := _class_in(kind)) is not None]
    if bases and len(bases) == len(types):
        path = f"{bases[0].__module__}.{bases[0].__qualname__}"
        if leaf.class_name is None:
            return f"{leaf.key}: name a class_path first: {', '.join(sorted(subclass_names(path, ours=True)))}"
        hint = suggestion(leaf.class_name.rpartition(".")[2], sorted(subclass_names(path)))
        return f"{leaf.key}: no class {leaf.class_name!r} of kind {bases[0].__name__}{hint}"
    return f"{leaf.key}: expected {' or '.join(type_words(kind) for kind in types)}, got {given}"


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _class_in(kind: str) -> type | None:
    """The class that a type, or a list of that type, needs; None for numbers, texts and the like."""
    match = re.fullmatch(r"(?:list\[)?([\w.]+\.\w+)\]?", kind)
    module, _, name = match[1].rpartition(".") if match else ("", "", "")
    try:
        found = getattr(import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def type_words(kind: str) -> str:
    """A type in words, as in "a whole number"."""
    kind = _TYPE.sub(r"\1", kind)
    if match := re.fullmatch(r"(?:[Ss]equence|list)\[(?:[\w.]*\.)?Literal\[(.+)\]\]", kind):
        return f"a list of any of {match[1]}"
    if match := re.search(r"Literal\[(.+?)\]", kind):
        return f"one of {match[1]}"
    if match := re.fullmatch(r"list\[(?:[\w.]+\.)?(\w+)\]", kind):
        return f"a list of {match[1]}"
    words = {"float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false"}
    if "[" in kind:
        return re.sub(r"[\w.]+\.(\w+)", r"\1", kind)
    return words.get(kind, f"a mapping ({kind.rpartition('.')[2]})" if "." in kind else kind)


def class_arguments(class_path: str) -> list[str]:
    """Names of the arguments that a class takes from YAML, those it hands on through ``**kwargs`` included."""
    try:
        found = locate(class_path)
    except ErrorDuringImport:
        return []
    if not isinstance(found, type):
        return []
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(found, fail_untyped=False)
    except Exception:  # only a hint depends on it
        return []
    return [action.dest for action in parser._actions if action.dest not in ("help", "config")]


def subclass_names(class_path: str, ours: bool = False) -> set[str]:
    """Short names of the public classes below a base that are imported; ``ours`` leaves Lightning's own out.

    Args:
        class_path: of the base.
        ours: leave Lightning's own classes out.
    """
    base = locate(class_path)
    if not isinstance(base, type):
        return set()
    found: set[str] = set()
    queue: list[type] = [base]
    while queue:
        children: list[type] = type.__subclasses__(queue.pop())
        queue += children
        for child in children:
            if not child.__name__.startswith("_") and not (ours and child.__module__.startswith("lightning")):
                found.add(child.__name__)
    return found
