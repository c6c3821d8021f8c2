"""``--ckpt_path best``: the file that a ModelCheckpoint of the newest run has found best."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import QUICK, Command

CHECKPOINTS = Path("runs/run/version_0/checkpoints")


def trained(sparselit: Command, folder: Path, *callbacks: dict[str, object]) -> None:
    config = yaml.safe_load(QUICK)
    config["trainer"]["val_check_interval"] = 1
    config["trainer"]["callbacks"] += callbacks
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err


def best(monitor: str = "density/total", **arguments: object) -> dict[str, object]:
    given = {"monitor": monitor, "mode": "max", "save_top_k": 1, "filename": "best-{step}", **arguments}
    return {"class_path": "ModelCheckpoint", "init_args": given}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("command", ["test", "predict", "validate", "discover", "fit"])
def test_a_command_takes_the_best_checkpoint(command: str, sparselit: Command, folder: Path) -> None:
    trained(sparselit, folder, {**best(), "init_args": {**best()["init_args"], "every_n_train_steps": 1}})  # type: ignore[dict-item]
    (file,) = CHECKPOINTS.glob("best-*.ckpt")
    assert load_checkpoint(file)["global_step"] < 6  # the density falls
    code, _, err = sparselit(command, "--config", "run.yaml", "--ckpt_path", "best")
    assert code in (0, 1), err
    assert f"the best checkpoint is {file}" in err
    if command == "fit":
        assert Path("runs/run/version_1/result.json").is_file()  # a run of its own


def test_a_run_that_was_renamed_has_its_best_checkpoint(sparselit: Command, folder: Path) -> None:
    trained(sparselit, folder, best("val/loss"))
    shutil.move("runs/run", "runs/other")
    shutil.copy("run.yaml", "other.yaml")
    code, _, err = sparselit("test", "--config", "other.yaml", "--ckpt_path", "best")
    assert code == 0, err
    assert "the best checkpoint is runs/other/version_0/checkpoints/best-" in err


def test_where_there_is_none_a_line_says_what_to_do(sparselit: Command, folder: Path) -> None:
    code, _, err = sparselit("test", "--ckpt_path", "best")
    assert (code, err) == (2, err)
    assert "--ckpt_path best needs --config" in err
    trained(sparselit, folder)
    for name, reason in (
        ("run.yaml", "has none; add a ModelCheckpoint with a monitor"),
        ("quick.yaml", "--ckpt_path best: no checkpoint in runs/quick"),
    ):
        code, _, err = sparselit("test", "--config", name, "--ckpt_path", "best")
        assert code == 2
        assert reason in err
        assert len(err.splitlines()) <= 2


def test_several_are_named(sparselit: Command, folder: Path) -> None:
    trained(sparselit, folder, best("val/loss"), best("val/accuracy", filename="other-{step}"))
    code, _, err = sparselit("test", "--config", "run.yaml", "--ckpt_path", "best")
    assert code == 2
    assert "several callbacks of the run have one" in err
    assert len(err.splitlines()) == 1


def test_a_best_checkpoint_that_is_gone_is_named(sparselit: Command, folder: Path) -> None:
    trained(sparselit, folder, best("val/loss"))
    (file,) = CHECKPOINTS.glob("best-*.ckpt")
    file.unlink()
    code, _, err = sparselit("test", "--config", "run.yaml", "--ckpt_path", "best")
    assert code == 2
    assert f"{file} is not there any more" in err
