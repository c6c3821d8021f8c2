"""What is installed: every package, under the names that users import."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
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


def shipped() -> dict[str, Path]:
    """Every file that a user needs, by its name in the installed package."""
    found = [path for path in ROOT.glob("sparselit/**/*") if path.is_file()]
    found += [path for folder in BESIDE for path in (ROOT / folder).glob("*") if path.is_file()]
    names = {path: path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts}
    return {str(name if name.parts[0] == "sparselit" else "sparselit" / name): path for path, name in names.items()}


def test_every_file_of_a_package_is_declared() -> None:
    patterns = declared()["package-data"]
    for name in shipped():
        package, _, file = name.rpartition("/")
        parents = [package, *map(str, Path(package).parents)]  # data may lie in folders that are no packages
        kept = [f"{parent}/{glob}" for parent in parents for glob in patterns.get(parent.replace("/", "."), ())]
        assert file.endswith(".py") or any(fnmatch(name, pattern) for pattern in kept), name


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    besides = {"runs", "build", "dist", "site"}  # of the root: inside there is a package of the same name

    def left_out(place: str, names: list[str]) -> set[str]:
        found = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")(place, names)
        return found | (besides if Path(place) == ROOT else set())

    shutil.copytree(ROOT, source, ignore=left_out)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    return [archive, *folder.glob("*.whl")]


@pytest.mark.slow
def test_a_wheel_holds_the_packages_and_nothing_else(distributions: list[Path]) -> None:
    names = set(zipfile.ZipFile(distributions[1]).namelist())
    assert {top for name in names if not (top := name.split("/")[0]).endswith(".dist-info")} == {"sparselit"}
    assert shipped().keys() <= names


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_what_is_installed_runs_without_the_repository(kind: str, distributions: list[Path], tmp_path: Path) -> None:
    target, distribution = tmp_path / "installed", distributions[kind == "wheel"]
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target)]
    subprocess.run([*command, str(distribution)], check=True, capture_output=True)
    script = "import sparselit; print(sparselit.__file__); from sparselit.cli import main; main()"
    for words in (["configs"], ["tasks"], ["fit", "--config", "quotes_synthetic", "--trainer.max_steps", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr  # 3: the density of one step is not the target
        assert done.stdout.startswith(str(target))
