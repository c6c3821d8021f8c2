"""What the run did not write it never removes or replaces; a run that made a step is never removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import RunFolder, checkpoint_files

from .conftest import QUICK, Command, files_in

EVERY: dict[str, Any] = {"save_top_k": -1, "every_n_train_steps": 1, "filename": "{step}"}
RUN = "runs/run/version_0"


def write_config(folder: Path, *callbacks: tuple[str, dict[str, Any]], **trainer: Any) -> None:
    config = yaml.safe_load(QUICK)
    config["trainer"] |= trainer
    config["trainer"]["callbacks"] += [{"class_path": name, "init_args": arguments} for name, arguments in callbacks]
    (folder / "run.yaml").write_text(yaml.safe_dump(config))


def steps_in(folder: Path) -> list[int]:
    return sorted(load_checkpoint(path)["global_step"] for path in folder.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "expected", "logger"),
    [
        (EVERY, [1, 2, 3, 4, 5, 6], None),
        (EVERY, [1, 2, 3, 4, 5, 6], False),
        ({**EVERY, "save_weights_only": True}, [1, 2, 3, 4, 5, 6], None),
        ({**EVERY, "enable_version_counter": False}, [1, 2, 3, 4, 5, 6], None),
        ({**EVERY, "save_top_k": 1}, [6], None),
        ({**EVERY, "save_top_k": 2, "monitor": "train/loss", "filename": "at-{step}"}, None, False),
        ({"filename": "{step}", "monitor": "val/loss", "save_top_k": -1}, [3, 6], None),
    ],
    ids=["all", "no logger", "weights only", "no versions", "one", "best two", "at validation"],
)
def test_every_checkpoint_of_a_user_stays_beside_those_of_the_run(arguments, expected, logger, sparselit, folder):
    write_config(folder, ("ModelCheckpoint", arguments), logger=logger)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    own = {4, 6}  # of the run, which keeps two
    mine = steps_in(folder)
    for step in own:
        mine.remove(step)
    assert mine == expected if expected is not None else len(mine) == 2
    assert {path.parts[0] for path in (p.relative_to(folder) for p in folder.rglob("*.ckpt"))} == {"runs"}
    # the run goes on from a whole checkpoint, whoever has written it
    code, _, err = sparselit("fit", "--ckpt_path", RUN, "--trainer.max_steps", "8")
    assert code == 0, err
    assert "resuming from step 6" in err
    assert set(steps_in(folder)) >= {6, 8, *(expected if expected and len(expected) > 1 else ())}


def test_two_checkpoints_of_a_user_keep_their_own_files(sparselit: Command, folder: Path) -> None:
    best = {"monitor": "val/loss", "filename": "best-{step}"}
    write_config(folder, ("ModelCheckpoint", EVERY), ("ModelCheckpoint", best))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    names = {path.name for path in (folder / RUN / "checkpoints").iterdir()}
    assert names >= {f"step={step}.ckpt" for step in range(1, 7)}
    assert len([name for name in names if name.startswith("best-")]) == 1


def test_a_checkpoint_that_a_callback_saves_itself_stays(sparselit: Command, folder: Path) -> None:
    (folder / "saving.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Saving(Callback):\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        f"        trainer.save_checkpoint(f'{RUN}/checkpoints/step={{trainer.global_step}}.ckpt', weights_only=True)\n"
    )
    write_config(folder, ("saving.Saving", {}))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    found = folder / RUN / "checkpoints"
    for step in range(1, 7):
        assert "optimizer_states" not in load_checkpoint(found / f"step={step}.ckpt")
    assert {path.name for path in found.glob("*-v*")} == {"step=4-v1.ckpt", "step=6-v1.ckpt"}
    code, _, err = sparselit("fit", "--ckpt_path", RUN, "--trainer.max_steps", "7")
    assert code == 0, err
    assert "resuming from step 6" in err


def test_checkpoints_of_an_earlier_run_in_the_same_folder_stay(sparselit: Command, folder: Path) -> None:
    config = yaml.safe_load(QUICK)
    config["trainer"]["callbacks"][0]["init_args"]["dirpath"] = str(folder / "mine")
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert sparselit("fit", "--config", "run.yaml")[0] == 0
    before = {path.name: path.read_bytes() for path in (folder / "mine").iterdir()}
    assert sparselit("fit", "--config", "run.yaml", "--seed_everything", "1")[0] == 0
    after = {path.name: path.read_bytes() for path in (folder / "mine").iterdir()}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"step=4-v1.ckpt", "step=6-v1.ckpt"}


def test_a_step_may_have_several_files_and_the_plain_name_is_the_first(tmp_path: Path) -> None:
    for name in ("step=3.ckpt", "step=3-v1.ckpt", "step=3-v2.ckpt", "step=12.ckpt", "step=x.ckpt", "step=3-v1-v2.ckpt"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in checkpoint_files(tmp_path)]
    assert names == ["step=12.ckpt", "step=3.ckpt", "step=3-v1.ckpt", "step=3-v2.ckpt"]
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints").mkdir()
    assert RunFolder(tmp_path).checkpoints() == {}


@pytest.mark.parametrize(
    ("strategy", "command"),
    [("ddp_spawn", "fit"), ("ddp_fork", "fit"), ("ddp_notebook", "fit"), ("ddp_fork", "test")],
)
def test_strategies_that_train_in_copies_of_the_process_are_refused(strategy, command, sparselit, folder):
    write_config(folder)
    if command == "test":
        assert sparselit("fit", "--config", "run.yaml")[0] == 0
    before = files_in(folder)
    more = ("--ckpt_path", RUN) if command == "test" else ("--config", "run.yaml")
    code, _, err = sparselit(command, *more, "--trainer.strategy", strategy, "--trainer.devices", "2")
    assert code == 2
    assert "use strategy: ddp" in err
    assert len(err.strip().splitlines()) <= 2
    assert files_in(folder) == before


def test_a_run_that_made_a_step_stays_however_it_ends(sparselit: Command, folder: Path) -> None:
    (folder / "failing.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "from sparselit.errors import SparselitError\n"
        "class Failing(Callback):\n"
        "    def __init__(self, at: int = 1):\n"
        "        self.at = at\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        "        if trainer.global_step == self.at:\n"
        "            raise SparselitError('enough')\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        f"        Path('{RUN}/notes.txt').write_text('mine')\n"
        "        if self.at == 0:\n"
        "            raise SparselitError('enough')\n"
    )
    write_config(folder, ("failing.Failing", {"at": 1}))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert (code, err.splitlines()[-1]) == (2, "error: enough")
    assert {"config.yaml", "result.json", "summary.md"} <= {path.name for path in (folder / RUN).iterdir()}
    write_config(folder, ("failing.Failing", {"at": 0}))
    (folder / "runs/run").rename(folder / "runs/first")
    assert sparselit("fit", "--config", "run.yaml")[0] == 2
    assert [path.name for path in (folder / RUN).iterdir()] == ["notes.txt"]


def test_discarding_leaves_what_the_run_did_not_write(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs/quotes/version_0").create()
    ours = ("config.yaml", "result.json", "summary.md", ".lock", ".owner.json", "events.out.tfevents.1.host.2.0")
    for name in (*ours, "checkpoints/step=3.ckpt", "mine.txt"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("")
    run.discard()
    assert len(list(run.path.iterdir())) == len(ours) + 2
    (run.checkpoint_folder / "step=3.ckpt").unlink()
    run.discard()
    assert [path.name for path in run.path.iterdir()] == ["mine.txt"]
    (run.path / "mine.txt").unlink()
    run.discard()
    assert not (tmp_path / "runs").exists()
