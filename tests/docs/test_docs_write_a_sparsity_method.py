"""docs/how_to/write_a_sparsity_method.md, followed literally; its method keeps what all methods owe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier
from tests.callbacks.methods import QUIET, STEPS, Member, arguments_of, registered, trained

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "write_a_sparsity_method.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def saved(folder: Path) -> None:
    """Write the files that the page says to write."""
    for match in BLOCK.finditer(PAGE):
        if match[1] and (name := re.search(r"Save this as `([^`]+)`[^`]*$", PAGE[: match.start()])):
            (folder / name[1]).parent.mkdir(exist_ok=True)
            (folder / name[1]).write_text(match[2], encoding="utf-8")


@pytest.fixture
def kind(tmp_path: Path) -> type[Sparsifier]:
    saved(tmp_path)
    names: dict[str, Any] = {"__name__": "balanced"}
    exec(compile((tmp_path / "methods/balanced.py").read_text(), str(tmp_path / "methods/balanced.py"), "exec"), names)
    return names["BalancedSparsity"]


def test_the_page_followed_literally_trains_with_a_new_method(tmp_path: Path) -> None:
    saved(tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = {}
    for command in (line for match in BLOCK.finditer(PAGE) if not match[1] for line in match[2].splitlines()):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = " ".join(done.stdout.split())
    shown = next(text for command, text in said.items() if ".help" in command)
    for name in ("power", "density", "rules", "moments", "grads", "distribution"):
        assert f"--sparsity.{name}" in shown
    assert "how much the size of a row counts" in shown
    assert "zeroes them at dead entries after every step" in shown
    run = tmp_path / "runs" / "balanced" / "version_0"
    assert list((run / "checkpoints").glob("*.ckpt"))
    assert "methods.balanced.BalancedSparsity" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("density", [0.25, Schedule(to=0.22, end=0.8)])
def test_its_method_keeps_exact_budgets_and_floors(kind: type[Sparsifier], density: Any, tmp_path: Path) -> None:
    member = Member("BalancedSparsity", kind)

    def make_trainer(*callbacks: Any, **arguments: Any) -> Trainer:
        return Trainer(**QUIET, callbacks=list(callbacks), default_root_dir=tmp_path, **arguments)

    for rules in (None, [Rule("weights.0", floor=1, per="both"), Rule("*", density=None)]):
        callback = member(density, rules)
        module, watch = trained(callback, make_trainer)
        watch.check()
        assert watch.targets[-1] == callback.targets(STEPS)
    assert (module.weights[0] != 0).any(0).all()
    assert (module.weights[0] != 0).any(1).all()
    with pytest.raises(SparselitError, match=r"power must lie in \[0, 1\], got 2"):
        kind(0.1, power=2)


def test_the_table_names_what_the_base_offers_and_the_examples_exist(kind: type[Sparsifier]) -> None:
    rows = re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE)
    names = [re.match(r"\w+", name)[0] for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 8
    assert all(hasattr(Sparsifier, name) for name in names)
    assert {"moments", "grads"} <= arguments_of(registered()["GradualPruning"]).keys()
