"""YAML in and out: a key given twice is refused, and a text that is written is read back as the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader

from sparselit.errors import SparselitError
from sparselit.runs.plain_file import read_text

#: The parser's own, which takes 1e3 for a number and a date for a text, unlike YAML 1.1.
_ParserLoader: Any = get_yaml_default_loader()
#: Bytes of the largest configuration.
_LARGEST = 2**20
#: Nested deeper than any experiment; the parser would end in a RecursionError.
_DEEPEST = 50
#: More values than any experiment has, aliases counted as often as they stand there.
_MOST_VALUES = 100_000


class _Loader(_ParserLoader):
    """Refuses what YAML forbids and its parsers let pass: a mapping that has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, in which the last of two equal keys would silently win."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key_node, yaml.ScalarNode):
                line = key_node.start_mark.line + 1
                if key_node.value in lines:
                    problem = f"the key {key_node.value!r} stands there twice, first in line {lines[key_node.value]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
                lines[key_node.value] = line
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """Puts quotes around every text that the parser would read as something else."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        """Escaped where it holds what is not printed: some of it ends a line, and is read back as another character."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)
for _first, _resolvers in _ParserLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def load(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: YAML.
        where: where it stands, for messages.

    Raises:
        SparselitError: it is not YAML, has a key twice, or is nested without end; the message names the line.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        _refuse_excess(value, where)
        return value
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:120]
        raise SparselitError(f"{where}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise SparselitError(f"{where}: nested too deeply") from None
    except (ValueError, TypeError, OverflowError) as error:  # a date that is none, a key that is a list
        raise SparselitError(f"{where}: not valid YAML: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """The keys of a configuration file.

    Raises:
        SparselitError: it cannot be read, is not YAML, or holds no keys.
    """
    try:
        text = read_text(path, "utf-8-sig", _LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise SparselitError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return keys(text, str(path))


def keys(text: str, where: str) -> dict[str, Any]:
    """The keys of a configuration.

    Args:
        text: YAML.
        where: where it stands, for messages.

    Raises:
        SparselitError: see :func:`load`; or it holds no keys.
    """
    content = load(text, where)
    if not isinstance(content, dict):
        raise SparselitError(f"{where} must hold keys such as data: and model:, got {str(content)[:40]!r}")
    return content


def dump(data: Any) -> str:
    """Values as YAML that the parser reads back as the same values."""
    return yaml.dump(data, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def _refuse_excess(value: Any, where: str) -> None:
    """Refuse what is nested without end, or multiplies itself by aliases of aliases."""
    parts, depth = [value], 0
    seen = 0
    while parts:
        seen += len(parts)
        if depth > _DEEPEST or seen > _MOST_VALUES:
            raise SparselitError(f"{where}: " + ("nested too deeply" if depth > _DEEPEST else "too many values"))
        parts = [
            inner
            for part in parts
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        depth += 1
