"""One HTML file that holds everything: the page's script and style with their hashes, and the data, inert."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

#: The page's scripts in the order in which they run, each a part of one function's body.
_SCRIPTS = ("data.js", "view.js", "draw.js", "canvas.js", "panel.js", "prompt.js", "tables.js", "main.js")
_POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
)


def page_text(title: str, data: Mapping[str, Any]) -> str:
    """The file.

    Args:
        title: of the window.
        data: what the script reads; any text in it stays text.
    """
    script, style = _script(), _static("page.css")
    policy = _POLICY.format(script=_digest(script), style=_digest(style))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="sparselit">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<div id="app"><noscript>This page draws a circuit with its own script, which is switched off here.</noscript></div>
<script type="application/json" id="data">{inert(data)}</script>
<script type="application/json" id="kept">{{}}</script>
<script type="text/plain" id="licences">{_licences()}</script>
<script>{script}</script>
</body>
</html>
"""


def inert(data: object) -> str:
    """JSON in ASCII that no parser of HTML or JavaScript can take for anything else."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _script() -> str:
    parts = "\n".join(_static(name) for name in _SCRIPTS)
    return f'{_static("d3.js")}\n(() => {{\n"use strict";\n{parts}\n}})();\n'


@cache
def _licences() -> str:
    return _static("THIRD_PARTY_LICENSES.txt").replace("<", "(").replace(">", ")")


@cache
def _static(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
