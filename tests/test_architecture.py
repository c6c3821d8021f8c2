"""The floors of docs/architecture.md, checked on the import statements of every file.

``python -m tests.test_architecture`` prints the rooms, the arrows between them and the circles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUG_INS = ("tasks", "callbacks", "configs")
#: The floors from the ground up: what stands on one may import what stands lower, and nothing beside it.
FLOORS = (
    {"errors"},
    {"statistics", "sparsity"},
    {"runs"},
    {"data"},
    {"model"},
    {"circuits"},
    {"report", "interop", "sweep"},
    {"training"},
    {"modules"},
    {"tasks", "callbacks", "cli"},
    {"benchmarks"},
)
#: The same inside circuits/.
CIRCUIT_FLOORS = (
    {"criterion"},
    {"run"},
    {"claims"},
    {"circuit"},
    {"size", "files"},
    {"subnetwork"},
    {"search"},
    {"loaded"},
    {"sets"},
    {"evidence"},
    {"use", "verify", "discover"},
)
#: Usable in a notebook without Lightning. In data/ the task is a LightningDataModule, and what examines one.
WITHOUT_LIGHTNING = ("errors", "statistics", "sparsity", "runs", "model", "circuits", "report", "interop", "data")
WITH_LIGHTNING = {"sparselit.data.task", "sparselit.data.soundness", "sparselit.data.texts"}
#: The package itself and the plug-ins' folders only name what lies in them.
SIZES = {"rooms": 19, "arrows": 75, "lines of a file": 400, "entries of circuits/": 15}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("sparselit", *parts) if parts[0] in (*PLUG_INS, "benchmarks") else parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {
    module_of(path): path
    for folder in ("sparselit", *PLUG_INS, "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imported(name: str) -> Iterator[str]:
    """Every module that a module imports, also within functions and for type checkers; of ours, the file."""
    path = FILES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in FILES else module


def room_of(name: str) -> str:
    """The first folder, or the file, below sparselit/."""
    return name.split(".")[1] if "." in name else ""


IMPORTS = {name: sorted({other for other in imported(name) if other != name}) for name in FILES}


def arrows() -> set[tuple[str, str]]:
    """Which room imports which."""
    pairs = {(room_of(name), room_of(other)) for name, others in IMPORTS.items() for other in others if other in FILES}
    return {(one, other) for one, other in pairs if one != other}


def rooms() -> set[str]:
    return {room_of(name) for name in FILES} | {".ci"}


def floor_of(room: str, floors: tuple[set[str], ...]) -> int:
    found = [i for i, floor in enumerate(floors) if room in floor]
    assert found, f"{room} stands on no floor: give it one here and in docs/architecture.md"
    return found[0]


def circles() -> list[list[str]]:
    """Sets of files that import each other, the package's own name (which is lazy) left out."""
    graph = {name: [o for o in others if o in FILES and o != "sparselit"] for name, others in IMPORTS.items()}
    reach: dict[str, set[str]] = {}
    for name in graph:
        seen: set[str] = set()
        ahead = list(graph[name])
        while ahead:
            one = ahead.pop()
            if one not in seen:
                seen.add(one)
                ahead += graph[one]
        reach[name] = seen
    return sorted({tuple(sorted(o for o in reach[n] if n in reach.get(o, ()))) for n in graph if n in reach[n]})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in FILES if room_of(name) not in ("", "configs")])
def test_imports_go_downwards_only(name: str) -> None:
    own = room_of(name)
    for other in IMPORTS[name]:
        if other not in FILES or other == "sparselit" or room_of(other) == own:
            continue
        assert floor_of(room_of(other), FLOORS) < floor_of(own, FLOORS), f"{name} imports {other}"


def inside(name: str) -> str:
    return name.split(".")[2]


@pytest.mark.parametrize("name", [n for n in FILES if room_of(n) == "circuits" and n.count(".") > 1])
def test_imports_within_circuits_go_downwards_only(name: str) -> None:
    for other in IMPORTS[name]:
        if other in FILES and room_of(other) == "circuits" and inside(other) != inside(name):
            assert floor_of(inside(other), CIRCUIT_FLOORS) < floor_of(inside(name), CIRCUIT_FLOORS), other


def test_there_is_no_circle() -> None:
    assert circles() == []


@pytest.mark.parametrize("name", [n for n in FILES if room_of(n) in WITHOUT_LIGHTNING and n not in WITH_LIGHTNING])
def test_the_core_never_imports_lightning(name: str) -> None:
    assert not [other for other in IMPORTS[name] if other.startswith(("lightning", "pytorch_lightning"))]


def test_the_core_never_imports_a_plug_in_by_name() -> None:
    for name, others in IMPORTS.items():
        if room_of(name) not in (*PLUG_INS, "benchmarks"):
            assert not [o for o in others if o.startswith(("sparselit.tasks", "sparselit.callbacks"))], name


def test_verify_imports_no_search_and_no_fast_path() -> None:
    """Not even through what it imports."""
    ahead, seen = ["sparselit.circuits.verify"], set[str]()
    while ahead:
        name = ahead.pop()
        for forbidden in ("search", "fast", "compaction", "residual_cache", "problem", "ranking", "discover"):
            assert forbidden not in name.split("."), name
        new = {other for other in IMPORTS.get(name, ()) if other.startswith("sparselit")} - seen
        seen |= new
        ahead += new
    assert "sparselit.circuits.run.naive" in seen


def test_the_house_keeps_its_size() -> None:
    assert len(rooms()) <= SIZES["rooms"], sorted(rooms())
    assert len(arrows()) <= SIZES["arrows"], sorted(arrows())
    entries = {inside(name) for name in FILES if name.startswith("sparselit.circuits.")}
    assert len(entries) + 1 <= SIZES["entries of circuits/"], sorted(entries)
    for path in FILES.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= SIZES["lines of a file"], path


def test_the_tests_mirror_the_folders() -> None:
    """A folder of tests is a folder of the project, or one of the few that cut across it."""
    across = {"ground_truth", "docs", "fuzz"}
    for folder in (path for path in (ROOT / "tests").rglob("*") if path.is_dir() and any(path.glob("*.py"))):
        place = folder.relative_to(ROOT / "tests")
        homes = (ROOT / "sparselit" / place, ROOT / place)
        assert place.parts[0] in across or any(home.is_dir() for home in homes), place


if __name__ == "__main__":
    print(f"{len(rooms())} rooms, {len(arrows())} arrows, {len(circles())} circles")
    for one in sorted(rooms()):
        print(f"{one or 'sparselit'}: {', '.join(sorted(other for room, other in arrows() if room == one))}")
