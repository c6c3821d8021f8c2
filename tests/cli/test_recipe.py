"""The recipe lies beneath an experiment that states no length, and beneath no other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparselit.cli.commands.configs import shipped
from sparselit.cli.experiment.recipe import EFFORTS, beneath
from sparselit.errors import SparselitError

from .conftest import Command

RECIPE = yaml.safe_load(shipped()["recipe"].read_text(encoding="utf-8"))


def printed(sparselit: Command, *argv: str) -> dict[str, Any]:
    code, out, err = sparselit("fit", *argv, "--print_config")
    assert code == 0, err
    return yaml.safe_load(out)


def test_a_task_alone_is_trained_under_the_recipe_and_every_key_can_be_overridden(sparselit: Command) -> None:
    whole = printed(sparselit, "--data", "Minimum")
    assert whole["trainer"]["max_steps"] == RECIPE["trainer"]["max_steps"]
    assert whole["sparsity"]["init_args"]["shrink"] == RECIPE["sparsity"]["init_args"]["shrink"]
    assert whole["circuits"]["init_args"]["ablation"] == RECIPE["circuits"]["init_args"]["ablation"]
    own = printed(sparselit, "--data", "Minimum", "--model.d_model", "16", "--effort", "quick")
    assert own["model"]["init_args"]["d_model"] == 16
    assert own["model"]["init_args"]["init_std"] == RECIPE["model"]["init_std"]
    assert own["trainer"]["max_steps"] == EFFORTS["quick"]["trainer"]["max_steps"]


def test_an_experiment_with_a_length_of_its_own_has_none_of_it(sparselit: Command, folder: Path) -> None:
    for argv in (("--config", "quick.yaml"), ("--data", "Minimum", "--trainer.max_steps", "5")):
        whole = printed(sparselit, *argv)
        assert whole["circuits"] is None
        assert whole["model"]["init_args"]["init_std"] != RECIPE["model"]["init_std"]
    for name, path in shipped().items():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "data" in content:
            assert beneath("fit", [("--config", name)]) == [], name


def test_an_effort_asks_for_the_recipe_beneath_a_length_that_is_given_as_an_option(folder: Path) -> None:
    (folder / "mine.yaml").write_text("data: Minimum\neffort: thorough\n")
    assert beneath("fit", [("--config", "mine.yaml"), ("--trainer.max_steps", "5")])
    *_, (_, last) = beneath("discover", [("--config", "mine.yaml"), ("--ckpt_path", "last")])
    assert json.loads(last or "") == {"effort": "thorough", **EFFORTS["thorough"]}
    assert beneath("discover", [("--data", "Minimum"), ("--ckpt_path", "x.ckpt")]) == []
    with pytest.raises(SparselitError, match="effort must be"):
        beneath("fit", [("--data", "Minimum"), ("--effort", "none")])


def test_a_shortcut_is_told_before_training_in_one_line(sparselit: Command, folder: Path) -> None:
    (folder / "given.py").write_text(
        "from sparselit import Example, Task\n\n\n"
        "class Given(Task):\n"
        "    vocabulary, max_length = 'ab=', 5\n\n"
        "    def sample(self, rng):\n"
        "        text = ''.join(rng.choices('ab', k=4))\n"
        "        return Example(text + '=', text[0], 'b' if text[0] == 'a' else 'a')\n"
    )
    small = ("--data.pool", "100", "--data.batch_size", "4", "--trainer.fast_dev_run", "true")
    code, _, err = sparselit("fit", "--data", "given.Given", "--effort", "quick", *small)
    assert code == 0, err
    (line,) = (line for line in err.splitlines() if "shortcut" in line)
    assert "fixed position alone gets 100.0 % of held-out prompts right" in line
