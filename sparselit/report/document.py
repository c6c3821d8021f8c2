"""A document as data: headings, paragraphs, lists and tables, written as Markdown or as HTML without script."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparselit.report.facts import visible

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .2rem .7rem; border-bottom: 1px solid #d8dde5; vertical-align: top; }
th { border-bottom: 2px solid #7b8794; } code { font-family: ui-monospace, monospace; font-size: .92em; }
@media (prefers-color-scheme: dark) { body { color: #e4e8ee; background: #14181f; } th, td { border-color: #333c49; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CODE = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Heading:
    """A heading; ``level`` 1 is the document's own."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Sentences; what stands between backticks is code."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Points | Table


def code(text: str) -> str:
    """A text as code: whatever it holds stays what it is, but for backticks and line ends."""
    return f"`{visible(text).replace('`', 'ˋ').replace(chr(10), '⏎').replace(chr(9), '⇥')}`"


def markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Points):
            parts.append("\n".join(f"- {text}" for text in block.texts))
        else:
            rows = [block.head, ("---",) * len(block.head), *block.rows]
            parts.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def html_page(blocks: Sequence[Block]) -> str:
    """The document as one HTML file that makes no request and runs nothing."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "sparselit")
    body = "\n".join(map(_html, blocks))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="sparselit">
<title>{html.escape(title.replace("`", ""))}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_text(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{_text(text)}</li>" for text in block.texts) + "</ul>"
    head = "".join(f"<th>{_text(cell)}</th>" for cell in block.head)
    rows = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in block.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"


def _text(text: str) -> str:
    return _CODE.sub(lambda match: f"<code>{match[1]}</code>", html.escape(visible(text)))
