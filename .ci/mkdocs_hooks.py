"""What the site shows of docstrings: ``:class:`~sparselit.x.Name``` becomes ``Name``."""

import re
from typing import Any

_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):\s*<code>~?(?:[\w.]+\.)?([\w]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with each page's content."""
    return _ROLE.sub(r"<code>\1</code>", html)
