"""What a callback monitors is checked before the first step, and each name that a run logs can be monitored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from sparselit.cli.experiment.monitors import logged_names

from .conftest import QUICK, Command

SEARCHED = QUICK + (
    "circuits: {every_n_steps: 100, search: GroupTesting, ablation: zero,"
    " criterion: [{metric: task_loss, at_most: 9.0}]}\n"
)
TYPOS = {
    "val/acuracy": "val/accuracy",
    "val_loss": "val/loss",
    "train/los": "train/loss",
    "circuit/edge": "circuit/edges",
    "density/totl": "density/total",
    "density/transformer.embed.token.weight": "",  # only with SparsityMonitor
}


def with_callback(folder: Path, name: str, monitor: str, *more: Any, **arguments: Any) -> None:
    config = yaml.safe_load(SEARCHED)
    callback = {"class_path": name, "init_args": {"monitor": monitor, **arguments}}
    config["trainer"]["callbacks"] += [callback, *more]
    (folder / "run.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
@pytest.mark.parametrize("typo", TYPOS)
def test_a_name_that_nothing_logs_is_refused_before_the_first_step(typo, callback, sparselit, folder) -> None:
    with_callback(folder, callback, typo)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 2
    assert f"error: {callback}.monitor: nothing in this run logs {typo!r}" in err
    assert not TYPOS[typo] or f"did you mean {TYPOS[typo]!r}?" in err
    assert len(err.splitlines()) == 1
    assert not (folder / "runs").exists()


def test_every_name_that_is_logged_is_known(sparselit: Command, folder: Path, monkeypatch) -> None:
    (folder / "run.yaml").write_text(SEARCHED)
    seen: list[tuple[list[str], set[str]]] = []
    fit = Trainer.fit

    def noting(trainer: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        fit(trainer, model, *args, **kwargs)
        seen.append((logged_names(trainer.callbacks, model, trainer.datamodule), set(trainer.callback_metrics)))

    monkeypatch.setattr(Trainer, "fit", noting)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    ((known, logged),) = seen
    assert set(known) == logged


@pytest.mark.parametrize(
    ("monitor", "more"),
    [
        ("val/loss", []),
        ("circuit/edges", []),
        ("train/lr", []),
        ("dead_rows/transformer.embed.token.weight", [{"class_path": "SparsityMonitor"}]),
        ("mine", [{"class_path": "mine.Mine"}]),  # a callback of one's own may log anything
    ],
)
def test_what_is_logged_can_be_monitored(monitor, more, sparselit, folder) -> None:
    (folder / "mine.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Mine(Callback):\n"
        "    def on_train_batch_end(self, trainer, pl_module, *args):\n        pl_module.log('mine', 1.0)\n"
    )
    with_callback(folder, "ModelCheckpoint", monitor, *more, every_n_train_steps=6)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err


def test_a_callback_that_may_miss_its_name_is_let_through(sparselit: Command, folder: Path) -> None:
    with_callback(folder, "EarlyStopping", "val/other", strict=False)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
