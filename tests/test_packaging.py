"""What is installed: every package, under the names that users import."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparselit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
BESIDE = ("tasks", "callbacks", "configs")  # stand beside the package and are installed inside it


def declared() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_declared_packages_are_the_folders_on_disk() -> None:
    core = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in ROOT.glob("sparselit/**/__init__.py")}
    assert set(declared()["packages"]) == core | {f"sparselit.{name}" for name in BESIDE}
    folders = {path.parent for path in ROOT.glob("sparselit/**/*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_plug_in_folders_map_into_the_package() -> None:
    places = declared()["package-dir"]
    for name in BESIDE:
        assert places[f"sparselit.{name}"] == name
        assert Path(importlib.import_module(f"sparselit.{name}").__file__).parent == ROOT / name


def test_public_names_are_lazy_and_complete() -> None:
    check = "import sys, sparselit; assert 'torch' not in sys.modules; dir(sparselit); sparselit.__version__; "
    check += "assert 'torch' not in sys.modules; sparselit.SparselitError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
    for name in sparselit.__all__:
        assert getattr(sparselit, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = sparselit.Nonsense


def test_the_core_names_no_plug_in() -> None:
    allowed = {
        ROOT / "sparselit/cli/experiment/plugins.py",
        ROOT / "sparselit/cli/commands/tasks.py",
        ROOT / "sparselit/cli/commands/configs.py",
    }
    for path in ROOT.glob("sparselit/**/*.py"):
        for line in path.read_text().splitlines():
            if line.lstrip().startswith(("import ", "from ")):
                assert not any(f"sparselit.{name}" in line for name in BESIDE), f"{path}: {line}"
        if path not in allowed:
            text = path.read_text()
            assert not any(f'"sparselit.{name}' in text for name in BESIDE), path


@pytest.mark.slow
def test_a_wheel_holds_the_plug_ins_and_the_configurations(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "build"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sparselit"}
    for path in [*ROOT.glob("configs/*.yaml"), *ROOT.glob("tasks/*.py"), *ROOT.glob("callbacks/*.py")]:
        assert f"sparselit/{path.relative_to(ROOT)}" in names
    assert "sparselit/py.typed" in names
