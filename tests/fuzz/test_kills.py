"""What is killed at a random moment goes on to what it would have come to, and no byte of it is lost."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import sparselit.report.picture
import sparselit.report.summary  # noqa: F401
from sparselit.circuits import load
from sparselit.cli import main
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import RunFolder, circuits_in

from .files import CONFIG, write_data

#: Kills for each of three seeds.
FIT_KILLS, DISCOVER_KILLS = 9, 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
STEPS, EVERY = 160, 10
#: Seconds after which a command that was killed, or was left alone, has ended.
_LIMIT = 120.0


def child(argv: list[str], folder: Path) -> int:
    """Start a command in a copy of this process, which has imported what it needs; its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.chdir(folder)
        out = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        for signum in SIGNALS:
            if signum != signal.SIGKILL:
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        try:
            main(argv)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(number: int) -> int:
    """The exit code of a child, or minus the signal that ended it."""
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise AssertionError(f"a command was still there after {_LIMIT:g} s")


def killed(argv: list[str], folder: Path, seconds: float, chance: random.Random) -> tuple[signal.Signals, int]:
    """Send a signal to a command at a random moment of its first so many seconds; which, and how it ended."""
    number = child(argv, folder)
    time.sleep(chance.random() * seconds)
    signum = chance.choice(SIGNALS)
    os.kill(number, signum)
    return signum, ended(number)


def assert_whole(folder: Path) -> None:
    """Every file that has a name of its own can be read, and no command has answered with a traceback."""
    for path in folder.rglob("*.ckpt"):
        load_checkpoint(path)
    for path in folder.rglob("circuits/step=*.json"):
        if not path.name.endswith(".timing.json"):
            load(path)
    for path in folder.rglob("config.yaml"):
        assert yaml.safe_load(path.read_text())
    assert "Traceback" not in (folder / "output.txt").read_text()


def state(run: RunFolder) -> dict[str, bytes]:
    """What a finished run has come to: its weights, the state of its optimizer, its circuits."""
    content = load_checkpoint(run.checkpoints()[STEPS])
    found = {f"weights {name}": tensor.numpy().tobytes() for name, tensor in content["state_dict"].items()}
    moments = content["optimizer_states"][0]["state"]
    for index, parts in moments.items():
        found |= {f"optimizer {index} {name}": torch.as_tensor(part).numpy().tobytes() for name, part in parts.items()}
    for path in (run.path / "circuits").rglob("*"):
        if path.is_file() and not path.name.endswith((".timing.json", ".partial.json", ".partial.safetensors")):
            found[str(path.relative_to(run.path))] = path.read_bytes()
    return found


class Whole:
    """A run that nobody disturbed.

    Args:
        folder: its folder.
        seconds: that it took.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.state = state(RunFolder(folder / "runs/case/version_0"))


def prepared(folder: Path) -> Path:
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    config["trainer"] |= {"max_steps": STEPS, "callbacks": config["trainer"]["callbacks"][:1]}
    config["trainer"]["callbacks"][0]["init_args"]["every_n_steps"] = EVERY
    folder.mkdir(exist_ok=True)
    write_data(folder)
    (folder / "case.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Whole:
    folder = prepared(tmp_path_factory.mktemp("whole"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["fit", "--config", str(folder / "case.yaml"), "--print_config"])  # imports what copies would import anew
    for _ in range(2):  # the second time nothing is imported any more
        began = time.monotonic()
        assert ended(child(["fit", "--config", "case.yaml"], folder)) == 0, (folder / "output.txt").read_text()
    assert len(circuits_in(folder / "runs/case/version_0/circuits")) == 2
    return Whole(folder, time.monotonic() - began)


def kill_fits(whole: Whole, folder: Path, kills: int, chance: random.Random) -> None:
    """Kill runs, go on in them, and compare those that come to their end with the undisturbed one."""
    done = finished = 0
    argv = ["fit", "--config", "case.yaml"]
    while done < kills or argv[-1] == "last":
        run = RunFolder.versions(folder / "runs", "case")[-1:]
        before = dict(run[0].checkpoints()) if run else {}
        if done < kills:
            signum, code = killed(argv, folder, whole.seconds * 0.6, chance)
            done += 1
        else:
            signum, code = signal.SIGKILL, ended(child(argv, folder))
        text = (folder / "output.txt").read_text()
        assert code in (0, -signum, 128 + signum), text
        assert_whole(folder)
        run = RunFolder.versions(folder / "runs", "case")[-1:]
        steps = run[0].checkpoints() if run else {}
        if argv[-1] == "last":
            assert max(steps) >= max(before), "steps were lost"
        if code == 0:
            assert state(run[0]) == whole.state
            finished += 1
            argv = ["fit", "--config", "case.yaml"]
        else:
            argv = ["fit", "--config", "case.yaml", *(["--ckpt_path", "last"] if steps else [])]
    assert finished
    assert not list(folder.rglob("*.tmp")) or done


def kill_searches(whole: Whole, folder: Path, kills: int, chance: random.Random) -> None:
    """Kill searches of a checkpoint; its circuit, its prompts and its weights are whole or not there at all."""
    run = next(run for run in RunFolder.versions(folder / "runs", "case") if STEPS in run.checkpoints())
    expected = {name: part for name, part in whole.state.items() if "step=160" in name or "prompts" in name}
    argv = ["discover", "--ckpt_path", str(run.path), "--config", "case.yaml"]
    for path in circuits_in(run.path / "circuits").values():
        path.unlink()
    for _ in range(kills):
        signum, code = killed(argv, folder, whole.seconds * 0.8, chance)
        assert code in (0, 4, -signum, 128 + signum), (folder / "output.txt").read_text()
        assert_whole(folder)
        assert not list(run.path.rglob("step=160.2.json"))
        for path in circuits_in(run.path / "circuits").values():
            assert path.read_bytes() == expected[str(path.relative_to(run.path))]
            path.unlink()
    assert ended(child(argv, folder)) in (0, 4)
    found = state(run)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills_lose_nothing(seed: int, whole: Whole, tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    kill_fits(whole, folder, FIT_KILLS, random.Random(seed))
    kill_searches(whole, folder, DISCOVER_KILLS, random.Random(-seed))
