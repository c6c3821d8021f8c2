"""A run that ends before its schedule says so at its end, in the summary and in result.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .conftest import QUICK, Command

STOP = """\
from lightning.pytorch import Callback


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        trainer.should_stop = trainer.global_step == 4
"""
EARLY = {
    "class_path": "EarlyStopping",
    "init_args": {"monitor": "val/accuracy", "patience": 1, "min_delta": 2.0, "mode": "max"},
}
LONG = {"max_steps": 20, "val_check_interval": 2}
#: What ends the run: trainer settings, further callbacks, the reason in result.json.
ENDINGS = {
    "a callback": (LONG, {"class_path": "stop.Stop"}, "stopped"),
    "early stopping": (LONG, EARLY, "early_stopping"),
    "max_time": ({**LONG, "max_steps": 100_000, "max_time": "00:00:00:01"}, None, "max_time"),
}
#: The same, where the true length is known: trainer settings.
KNOWN = {
    "max_epochs before max_steps": {"max_epochs": 2, "limit_train_batches": 5, "max_steps": 1000},
    "max_epochs alone": {"max_epochs": 2, "limit_train_batches": 5, "max_steps": -1},
    "accumulation": {"max_epochs": 4, "limit_train_batches": 5, "max_steps": -1, "accumulate_grad_batches": 2},
    "accumulation and max_steps": {"max_steps": 8, "accumulate_grad_batches": 3},
}


def configure(folder: Path, trainer: dict[str, object], callback: object = None, **density: object) -> None:
    config = yaml.safe_load(QUICK)
    config["trainer"].update(log_every_n_steps=1, **trainer)
    if callback is not None:
        config["trainer"]["callbacks"].append(callback)
    config["sparsity"]["init_args"]["density"] = {"to": 0.1, "end": 1.0, **density}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    (folder / "stop.py").write_text(STOP)


def result(folder: Path) -> dict[str, object]:
    return json.loads((folder / "runs/run/version_0/result.json").read_text())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_ends_early_names_target_and_reached_density(ending: str, sparselit: Command, folder: Path) -> None:
    trainer, callback, reason = ENDINGS[ending]
    configure(folder, trainer, callback)
    code, out, err = sparselit("fit", "--config", "run.yaml")
    assert code == 3, err  # ended, but not with what was configured
    found = result(folder)
    reached, target = found["density"]["reached"], found["density"]["target"]
    assert target == pytest.approx(0.1, abs=0.01)
    assert reached > 0.5
    line = f"the run ended with density {reached:.4g} where the target is {target:.4g}: the run ends at step "
    assert err.count(line) == 1
    (problem,) = found["problems"]
    assert problem.startswith(line)
    assert f" of {trainer['max_steps']:,}, before its schedule" in problem
    assert problem in " ".join((folder / "runs/run/version_0/summary.md").read_text().split())
    assert problem in " ".join(out.split())
    assert found["ended"] == reason


@pytest.mark.parametrize("known", KNOWN)
def test_where_the_length_is_known_the_target_is_reached(known: str, sparselit: Command, folder: Path) -> None:
    configure(folder, KNOWN[known])
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    found = result(folder)
    assert found["density"]["reached"] == found["density"]["target"] == pytest.approx(0.1, abs=0.01)
    assert found["problems"] == []
    assert "target" not in err


@pytest.mark.parametrize("density", [{"end": 30}, {"begin": 50, "end": 60}, {"end": 10**9}], ids=str)
def test_a_schedule_that_ends_beyond_the_run_is_told_before_the_first_step(density, sparselit, folder):
    configure(folder, {"max_steps": 6}, **density)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 3, err
    door, end = (
        row for row in err.splitlines() if "where the target is 0.0" in row or "where the target is 0.1" in row
    )
    assert door.startswith("the run will end with density ")
    assert end.startswith("the run ended with density ")
    assert door.split("density ")[1] == end.split("density ")[1]


def test_a_density_sweep_finds_a_circuit_at_every_target(sparselit: Command, folder: Path) -> None:
    (folder / "run.yaml").write_text(
        QUICK + "circuits: {every_n_steps: 100, begin: {density: 0.3}, ablation: zero,"
        " criterion: [{metric: task_loss, at_most: 9.0}]}\n"
    )
    for number, target in enumerate((0.2, 0.5)):
        code, _, err = sparselit("fit", "--config", "run.yaml", "--sparsity.density.to", str(target))
        assert code == 0, err
        found = json.loads((folder / f"runs/run/version_{number}/result.json").read_text())
        assert found["circuits"]["searches"] == 1
        assert ("circuits are sought from 0.5" in err) == (target == 0.5)
    code, _, err = sparselit("fit", "--config", "run.yaml", "--sparsity", "null")
    assert code == 2
    assert "circuits.begin.density is 0.3, and nothing makes the model sparser than 1" in err
    assert not (folder / "runs/run/version_2").exists()
