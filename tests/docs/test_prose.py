"""README and docs: links that lead somewhere, few numbers in prose, imports of public names only."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
#: Where digits belong: tables of measurements, and formats.
WITH_DIGITS = (DOCS / "results", DOCS / "reference")
PROSE = [page for page in PAGES if not any(folder in page.parents for folder in WITH_DIGITS)]
#: Numbers for each 100 words of prose.
MOST_NUMBERS = 2
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(text: str) -> str:
    """A page without fenced blocks, code in a line (names such as `layers.0`) and targets of links."""
    text = re.sub(r"`[^`]*`", "", _FENCE.sub("", text))
    return re.sub(r"\]\([^)]*\)", "]", text)


def numbers_per_100_words(text: str) -> float:
    prose = prose_of(text)
    return 100 * len(_NUMBER.findall(prose)) / len(re.findall(r"[^\W\d_]+", prose))


def anchors_of(text: str) -> set[str]:
    """The names that headings can be linked by."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_numbers_of_prose_are_counted_without_code() -> None:
    text = "Two of 4,096 words in `layers.0` are [here](page1.md).\n\n```\n1 2 3\n```\n"
    assert _NUMBER.findall(prose_of(text)) == ["4,096"]
    assert numbers_per_100_words(text) == pytest.approx(100 / 6)


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_prose_has_few_numbers(page: Path) -> None:
    assert numbers_per_100_words(page.read_text(encoding="utf-8")) <= MOST_NUMBERS


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in _LINK.findall(page.read_text("utf-8"))}
    assert {path for path in DOCS.rglob("*.png")} <= shown


def imports_of(code: str) -> list[tuple[str, str]]:
    """(module, name) of everything that a block of Python imports from the library."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] == "sparselit"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_imports_public_names_only(page: Path) -> None:
    for _, language, code in _FENCE.findall(page.read_text(encoding="utf-8")):
        for module, name in imports_of(code) if language == "python" and "import" in code else ():
            home = import_module(module)
            assert hasattr(home, "__path__"), f"{module} is a file; import from a package"
            assert name in home.__all__, f"{name} is no public name of {module}"


def test_the_map_of_folders_names_every_folder() -> None:
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "sparselit").rglob("__init__.py")}
    folders |= {"tasks/", "callbacks/", "configs/", "benchmarks/", "tests/", "docs/"}
    assert folders - {"sparselit/"} <= set(re.findall(r"`([\w./]+/)`", page))
