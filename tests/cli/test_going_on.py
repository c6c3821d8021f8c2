"""Going on in a run: never in another one, never beside another process, never over what its circuits rest on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.runs.folder import RunFolder

from .conftest import Command

CONFIG = """\
seed_everything: 0
data: {class_path: Parity, init_args: {batch_size: 16, pool: 200, report: 20, selection: 10, discovery: 10}}
model: {n_layers: 1, d_model: 8, n_heads: 2}
sparsity: {class_path: StaticSparsity, init_args: {density: 0.5}}
trainer:
  max_steps: 4
  accelerator: cpu
  enable_progress_bar: false
  logger: false
  callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 2}}]
"""
FIT = ("fit", "--config", "run.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "run.yaml").write_text(CONFIG)
    script = Path(sys.executable).with_name("sparselit")
    subprocess.run([script, *FIT], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def no_checkpoint(folder: Path) -> None:
    (folder / "runs/run/version_1").mkdir()


def another_seed(folder: Path) -> None:
    config = folder / "runs/run/version_0/config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))


def other_prompts(folder: Path) -> None:
    prompts = folder / "runs/run/version_0/circuits/prompts"
    prompts.mkdir(parents=True)
    (prompts / "report.jsonl").write_text("{}\n")
    (folder / "run.yaml").write_text(CONFIG + "circuits: {every_n_steps: 100}\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_checkpoint, "the newest run, runs/run/version_1, has no checkpoint yet"),
        (another_seed, "runs/run/version_0 was begun with seed_everything 1, this command says 0"),
        (other_prompts, "runs/run/version_0/circuits/prompts/report.jsonl holds other examples than this data gives"),
    ],
)
def test_a_run_that_is_not_the_one_meant_is_refused_untouched(
    damage: Callable[[Path], None], message: str, sparselit: Command, folder: Path
) -> None:
    damage(folder)
    before = contents(folder / "runs/run/version_0")
    code, out, err = sparselit(*FIT, "--ckpt_path", "last", "--trainer.max_steps", "6")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) <= 2
    assert contents(folder / "runs/run/version_0") == before


def _changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of every checkpoint, so that there is none to fall back to."""
    for path in (folder / "runs/run/version_0/checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)


def not_finite(folder: Path) -> None:
    _changed(folder, lambda content: next(iter(content["state_dict"].values())).fill_(float("nan")))


def no_moments(folder: Path) -> None:
    _changed(folder, lambda content: content["optimizer_states"][0].pop("param_groups"))


def another_vocabulary(folder: Path) -> None:
    _changed(folder, lambda content: content["Parity"].update(vocabulary=0.5))


def no_version(folder: Path) -> None:
    _changed(folder, lambda content: content.update({"pytorch-lightning_version": ""}))


def another_state(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for state in content["callbacks"].values():
            state.clear()
            state["x"] = 1

    _changed(folder, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (not_finite, "holds NaN or infinity in transformer.embed.token.weight"),
        (another_vocabulary, "is damaged: the vocabulary in it is no list"),
        (no_moments, "the checkpoint cannot be restored: KeyError"),
        (no_version, "the checkpoint cannot be restored: InvalidVersion"),
        (another_state, "the checkpoint cannot be restored: "),
    ],
)
def test_a_checkpoint_that_training_cannot_go_on_from_leaves_the_run_as_it_was(
    damage: Callable[[Path], None], message: str, sparselit: Command, folder: Path
) -> None:
    damage(folder)
    before = contents(folder / "runs/run/version_0")
    code, out, err = sparselit(*FIT, "--ckpt_path", "last", "--trainer.max_steps", "6")
    assert (code, out) == (2, "")
    answer = err.partition("error: ")[2]
    assert message in answer
    assert len(answer.splitlines()) <= 2
    assert contents(folder / "runs/run/version_0") == before


@pytest.mark.parametrize("where", ["runs/run/version_0", "runs/run/../run/version_0", "linked", "renamed"])
def test_a_runs_folder_is_all_that_going_on_and_testing_need(where: str, sparselit: Command, folder: Path) -> None:
    if where == "linked":
        Path(where).symlink_to("runs/run/version_0")
    elif where == "renamed":
        Path("runs/run/version_0").rename(where)
    code, out, err = sparselit("test", "--ckpt_path", where)
    assert code == 0, err
    assert "report" in out
    code, _, err = sparselit("fit", "--ckpt_path", where, "--trainer.max_steps", "6")
    assert code == 0, err
    assert "resuming from step 4" in err
    assert max(RunFolder(Path(where)).checkpoints()) == 6
    assert sorted(path.name for path in Path("runs/run").glob("version_*")) == [] or where != "renamed"


def test_two_processes_do_not_go_on_in_one_run(sparselit: Command, folder: Path) -> None:
    script = Path(sys.executable).with_name("sparselit")
    endless = [script, "fit", "--ckpt_path", "runs/run/version_0", "--trainer.max_steps", "1000000"]
    first = subprocess.Popen(endless, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: max(RunFolder(folder / "runs/run/version_0").checkpoints()) > 4, first)
        code, _, err = sparselit(*FIT, "--ckpt_path", "last", "--trainer.max_steps", "9")
        assert code == 2
        assert f"another process trains in {folder}/runs/run/version_0 (process {first.pid} on " in err
    finally:
        first.kill()
        first.wait()
    code, _, err = sparselit("fit", "--ckpt_path", "runs/run/version_0", "--trainer.max_steps", "9")
    assert code == 0, err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no hang-up signal")
def test_a_closed_terminal_keeps_the_step(folder: Path) -> None:
    script = Path(sys.executable).with_name("sparselit")
    run = subprocess.Popen(
        [script, *FIT, "--trainer.max_steps", "1000000"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    there = RunFolder(folder / "runs/run/version_1")
    wait(lambda: bool(there.checkpoints()), run)
    os.kill(run.pid, signal.SIGHUP)
    err = run.communicate(timeout=60)[1]
    assert run.returncode == 128 + signal.SIGHUP
    assert f"stopped after step {max(there.checkpoints())}; go on with:" in err
    assert "sparselit fit --ckpt_path runs/run/version_1" in err


def wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


FOREIGN = {
    "data": ("class_path: sparselit.tasks.Parity", "class_path: stolen.Parity"),
    "a callback": ("callbacks:\n", "callbacks:\n  - {class_path: stolen.Callback}\n"),
}


@pytest.mark.parametrize("part", FOREIGN)
@pytest.mark.parametrize("command", ["test", "fit", "predict", "discover", "validate"])
def test_a_configuration_that_was_not_named_imports_nobody_elses_module(
    part: str, command: str, sparselit: Command, folder: Path
) -> None:
    stranger = folder / "downloaded"
    (folder / "runs/run/version_0").rename(stranger)
    Path("stolen.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    config = stranger / "config.yaml"
    known, foreign = FOREIGN[part]
    assert known in config.read_text()
    config.write_text(config.read_text().replace(known, foreign))
    where = "downloaded" if command == "fit" else f"downloaded/checkpoints/{newest(stranger)}"
    code, out, err = sparselit(command, "--ckpt_path", where)
    assert (code, out) == (2, "")
    assert "names the class 'stolen." in err
    assert f"--config {config}" in err
    assert len(err.splitlines()) == 2
    assert not Path("imported").exists()


def newest(run: Path) -> str:
    return max(RunFolder(run).checkpoints().items())[1].name


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_before_the_first_step_says_which_it_was(
    sparselit: Command, folder: Path, name: str, code: int
) -> None:
    lines = [
        "import os, signal",
        "from lightning.pytorch import Callback",
        f"class Ending{name}(Callback):",
        "    def on_fit_start(self, *_):",
        f"        os.kill(os.getpid(), signal.{name})",
    ]
    (folder / f"ending_{name}.py").write_text("\n".join(lines))
    ending = f"--trainer.callbacks+=ending_{name}.Ending{name}"
    assert sparselit(*FIT, ending).code == code
    assert [run.name for run in folder.glob("runs/run/*")] == ["version_0"]
