"""The key ``circuits`` of ``sparselit fit``, and ``sparselit discover``, on a task that is learned in a few steps."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparselit.circuits.search import Auto
from sparselit.runs.checkpoint_file import load_checkpoint

from .conftest import Command, files_in

MODULE = """\
import itertools
import time
from pathlib import Path

from sparselit.circuits.search import GroupTesting
from sparselit.data.task import Example, Task


class Copying(Task):
    vocabulary, max_length = tuple("abc"), 4

    def examples(self):
        for letters in itertools.product("abc", repeat=4):
            yield Example("".join(letters), letters[-1], "abc"["abc".index(letters[-1]) - 1])


class Nothing(Task):  # every prompt is trained on, none is left to search on
    vocabulary, max_length, train_share = tuple("ab"), 1, 1.0

    def examples(self):
        return [Example("a", "a", "b"), Example("b", "b", "a")]


class Patient(GroupTesting):
    '''Leaves time to press a key: its file says that it has begun.'''

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds

    def shrink(self, problem, found, report):
        Path("searching").touch()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            report("waiting", len(found.kept))
        super().shrink(problem, found, report)
"""
CONFIG = """\
seed_everything: 0
data: {class_path: a_copying_task.Copying, init_args: {batch_size: 16, discovery: 16, selection: 8, report: 12}}
model: {n_layers: 1, d_model: 8, n_heads: 2, d_mlp: 4, norm: none, bias: false, lr: 0.03}
sparsity: {class_path: StaticSparsity, init_args: {density: 0.4}}
trainer:
  max_steps: 60
  accelerator: cpu
  enable_progress_bar: false
  callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 20}}]
"""
CIRCUITS = (
    "circuits: {every_n_steps: 40, begin: {density: 0.5}, criterion: [{metric: task_loss, at_most: 0.9}], "
    "ablation: zero}\n"
)
RUN = Path("runs/copy/version_0")
LAST = str(RUN / "checkpoints/step=60.ckpt")
FIT = ("fit", "--config", "copy.yaml")


@pytest.fixture
def copying(folder: Path) -> Path:
    """A current folder with a task, and a configuration with and without ``circuits``."""
    (folder / "a_copying_task.py").write_text(MODULE)
    (folder / "dense.yaml").write_text(CONFIG)
    (folder / "copy.yaml").write_text(CONFIG + CIRCUITS)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the finished run of this module lies; made by the first test that needs it."""
    return {"": tmp_path_factory.mktemp("trained")}


@pytest.fixture
def run(trained: dict[str, Path], copying: Path, sparselit: Command) -> Command:
    """Run a command in a folder with a copy of a finished run."""
    original = trained[""] / "runs"
    if not original.exists():
        code, out, err = sparselit(*FIT)
        assert code == 0, err
        (trained[""] / "out.txt").write_text(out)
        (trained[""] / "err.txt").write_text(err)
        shutil.copytree("runs", original)
    else:
        shutil.copytree(original, "runs")
    return sparselit


def circuits(folder: Path = RUN) -> dict[str, bytes]:
    """The files that must not differ between two equal runs."""
    paths = (folder / "circuits").rglob("*")
    return {p.name: p.read_bytes() for p in paths if p.is_file() and "timing" not in p.name}


# -- fit -------------------------------------------------------------------------------------------------------------


def test_fit_writes_circuits_and_says_so(run: Command, trained: dict[str, Path]) -> None:
    out, err = ((trained[""] / name).read_text() for name in ("out.txt", "err.txt"))
    assert {path.name for path in (RUN / "circuits").iterdir()} == {
        "prompts", *(f"step={step}.{kind}" for step in (40, 60) for kind in ("json", "safetensors", "timing.json")),
    }  # fmt: skip
    assert re.search(r"^step 40: circuit of \d+ edges and \d+ nodes, report split: task loss 0\.\d+", err, re.M)
    circuit = json.loads((RUN / "circuits/step=60.json").read_text())
    summary = (RUN / "summary.md").read_text()
    assert summary in out
    assert max(map(len, summary.splitlines())) <= 80
    value = circuit["criterion"][0]["value"]
    for expected in (
        f"- size         {circuit['size']['edges']} edges, {circuit['size']['nodes']} nodes, ",
        f"{circuit['size']['free']} free",
        f"- task_loss    {value:.4f}, to be ≤ 0.9 (report split, n 12)",
        "- ablation     zero",
        f"- necessity    loss {circuit['evidence']['complement']['task_loss']:.4f} with exactly",
        f"- null         {circuit['evidence']['nulls']['random_orders']['median']} edges needed in random order",
        f"- file         {RUN}/circuits/step=60.json",
        "% of the run's time",
        f"sparselit verify {RUN}/circuits/step=60.json",
    ):
        assert expected in summary
    code, out, _ = run("verify", str(RUN / "circuits/step=60.json"))
    assert code == 0
    assert "holds        yes" in out


def test_the_same_run_again_gives_the_same_bytes_and_without_circuits_the_same_weights(run: Command) -> None:
    again = Path("runs/copy/version_1")
    assert run(*FIT)[0] == 0
    assert len(circuits()) == 7
    assert circuits(again) == circuits()
    assert run("fit", "--config", "dense.yaml")[0] == 0
    dense = load_checkpoint("runs/dense/version_0/checkpoints/step=60.ckpt")["state_dict"]
    for name, weight in load_checkpoint(LAST)["state_dict"].items():
        assert weight.numpy().tobytes() == dense[name].numpy().tobytes()
    assert not (Path("runs/dense/version_0") / "circuits").exists()


def test_no_circuit_is_said_in_the_summary(copying: Path, sparselit: Command) -> None:
    strict = (CONFIG + CIRCUITS).replace("0.9", "0.000001").replace("max_steps: 60", "max_steps: 3")
    (copying / "copy.yaml").write_text(strict)
    code, out, err = sparselit(*FIT)
    assert code == 0
    assert "step 3: no circuit: the full model does not meet the criterion" in err
    assert "- circuit    none found: the full model does not meet the criterion on the" in out
    assert "the search needs task_loss ≤ 9e-07 - discovery" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert not (RUN / "circuits").exists()


def test_a_resumed_run_goes_on_with_the_figures_in_the_folder_of_the_run(copying: Path, sparselit: Command) -> None:
    sparselit(*FIT, "--trainer.max_steps", "40")
    before = circuits()
    code, out, _ = sparselit(
        *FIT, "--trainer.max_steps", "42", "--circuits.every_n_steps", "100", "--ckpt_path", "last"
    )
    assert code == 0
    assert "in 2 searches" in out
    assert circuits().keys() == {*before, "step=42.json", "step=42.safetensors"}
    code, out, _ = sparselit(*FIT, "--trainer.max_steps", "42", "--ckpt_path", "last")
    assert f"- file         {RUN}/circuits/step=42.json" in out


def test_a_circuits_key_without_a_class_means_circuit_discovery(copying: Path, sparselit: Command) -> None:
    overlay = copying / "overlay.yaml"
    for text, options, margin in (
        ("circuits: {margin: 0.3}", (), 0.3),
        ("circuits: {}", (), 0.1),
        ("{}", ("--circuits.margin", "0.2"), 0.2),
        ("{}", ("--circuits", "{margin: 0.2}"), 0.2),
        ("{}", ("--circuits", "CircuitDiscovery"), 0.1),
    ):
        overlay.write_text(text)
        code, out, err = sparselit(
            "fit", "--config", "dense.yaml", "--config", "overlay.yaml", *options, "--print_config"
        )
        assert code == 0, err
        chosen = yaml.safe_load(out)["circuits"]
        assert chosen["class_path"] == "sparselit.callbacks.CircuitDiscovery"
        assert chosen["init_args"]["margin"] == margin
    overlay.write_text("circuits: null")
    for options in (("--config", "overlay.yaml"), ("--circuits", "null")):
        assert yaml.safe_load(sparselit(*FIT, *options, "--print_config").out)["circuits"] is None
    assert yaml.safe_load(sparselit("fit", "--config", "dense.yaml", "--print_config").out)["circuits"] is None


def test_a_criterion_replaces_the_one_before_it_row_by_row(copying: Path, sparselit: Command) -> None:
    criterion = ("--circuits.criterion", "[{metric: accuracy, at_least: 0.5}]")
    merged = yaml.safe_load(sparselit(*FIT, *criterion, "--print_config").out)
    (row,) = merged["circuits"]["init_args"]["criterion"]
    assert row == {"metric": "accuracy", "at_most": None, "at_least": 0.5}


BAD = {
    "unknown metric": ({"criterion": [{"metric": "los", "at_most": 1}]}, "criterion metric 'los' is unknown"),
    "both bounds": ({"criterion": [{"metric": "accuracy", "at_most": 1, "at_least": 0}]}, "either at_most or at_least"),
    "no bound": ({"criterion": [{"metric": "accuracy"}]}, "the criterion on accuracy needs either"),
    "no criterion": ({"criterion": []}, "circuits.criterion is empty"),
    "margin": ({"margin": 1.5}, "circuits.margin must lie in [0, 1), got 1.5"),
    "cadence": ({"every_n_steps": 0}, "circuits.every_n_steps must be at least 1, got 0"),
    "begin": ({"begin": {"density": 3}}, "circuits.begin.density must lie in (0, 1], got 3"),
    "search": ({"search": "GroupTestng"}, "no class 'GroupTestng' of kind Search; did you mean 'GroupTesting'?"),
    "argument": ({"every_n": 3}, "CircuitDiscovery has no such argument; did you mean 'every_n_steps'?"),
    "ablation": (
        {"ablation": "men"},
        "circuits.ablation: expected one of 'zero', 'mean', 'resample' or a mapping (Ablation), got 'men'",
    ),
}


@pytest.mark.parametrize(("settings", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused_before_anything_is_written(
    copying: Path, sparselit: Command, settings: dict[str, Any], expected: str
) -> None:
    (copying / "bad.yaml").write_text(CONFIG + yaml.safe_dump({"circuits": settings}))
    before = files_in(copying)
    code, out, err = sparselit("fit", "--config", "bad.yaml")
    assert code == 2
    assert err.startswith("error: ")
    assert expected in err
    assert len(err.splitlines()) <= 2
    assert out == ""
    assert files_in(copying) == before


def test_data_without_a_behaviour_are_refused_before_anything_is_written(copying: Path, sparselit: Command) -> None:
    (copying / "boring.py").write_text(
        "from lightning.pytorch.demos.boring_classes import BoringDataModule\n"
        "class Plain(BoringDataModule):\n    vocab_size, max_length = 3, 4\n"
    )
    before = files_in(copying)
    for data, expected in (
        ("boring.Plain", "circuits need data with behaviours(), such as a sparselit.Task, and Plain has none"),
        ("a_copying_task.Nothing", "Nothing has no prompt for its discovery split"),
    ):
        code, _, err = sparselit("fit", "--data", data, "--circuits", "{}", "--trainer.max_steps", "3")
        assert code == 2
        assert err.startswith(f"error: {expected}")
        assert files_in(copying) - before <= {"__pycache__"} | {p for p in files_in(copying) if "__pycache__" in p}


# -- discover --------------------------------------------------------------------------------------------------------


def test_discover_gives_the_bytes_of_the_callback(run: Command) -> None:
    before = circuits()
    shutil.rmtree(RUN / "circuits")
    code, out, err = run("discover", "--ckpt_path", LAST)
    assert code == 0, err
    assert circuits() == {name: content for name, content in before.items() if "step=40" not in name}
    assert max(map(len, out.splitlines())) <= 80
    for expected in (
        "size         ",
        "task_loss    0.",
        f"file         {RUN}/circuits/step=60.json\n",
        "sparselit verify ",
    ):
        assert expected in out
    # again, from the newest checkpoint, by the name of the run
    code, out, err = run("discover", "--ckpt_path", "last", "--config", "copy.yaml")
    assert code == 0, err
    assert "step=60.json, as it was before" in out
    # a file that sets ckpt_path to null does not undo the option
    config = str(RUN / "config.yaml")
    assert run("discover", "--ckpt_path", LAST, "--config", config)[0] == 0
    assert circuits().keys() == {name for name in before if "step=40" not in name}


def test_discover_never_replaces_a_different_circuit_unless_its_name_is_given(run: Command) -> None:
    before = circuits()
    other = ("--circuits.criterion", "[{metric: task_loss, at_most: 0.8}]")
    for _ in range(2):  # the second time it is found under its own name
        code, out, _ = run("discover", "--ckpt_path", LAST, *other)
        assert code == 0
        assert f"{RUN}/circuits/step=60.2.json" in out
    after = circuits()
    assert after.keys() - before.keys() == {"step=60.2.json", "step=60.2.safetensors"}
    assert {name: after[name] for name in before} == before
    code, out, _ = run("discover", "--ckpt_path", LAST, *other, "--output", str(RUN / "circuits/step=60.json"))
    assert code == 0
    replaced = json.loads(circuits()["step=60.json"])
    assert replaced["criterion"][0]["at_most"] == 0.8
    assert run("verify", str(RUN / "circuits/step=60.2.json")).code == 0

    # the prompts of a folder belong to the circuits that are there
    code, _, err = run("discover", "--ckpt_path", LAST, "--data.seed", "5")
    assert code == 2
    assert "prompts/discovery.jsonl holds other examples than this data gives" in err
    code, out, err = run("discover", "--ckpt_path", LAST, "--data.seed", "5", "--output", "elsewhere/own.json")
    assert code == 0, err
    assert run("verify", "elsewhere/own.json").code == 0


def test_discover_without_a_circuits_key_uses_the_defaults(copying: Path, sparselit: Command) -> None:
    sparselit("fit", "--config", "dense.yaml", "--trainer.max_steps", "200")
    code, out, err = sparselit("discover", "--ckpt_path", "last", "--config", "dense.yaml")
    assert code == 0, err
    circuit = json.loads(Path("runs/dense/version_0/circuits/step=200.json").read_text())
    assert [(row["metric"], row.get("at_most"), row.get("at_least")) for row in circuit["criterion"]] == [
        ("task_loss", 0.15, None),
        ("kl", 0.02, None),
    ]
    assert circuit["ablation"]["kind"] == "mean"
    assert "to be ≤ 0.02" in out


def test_discover_says_why_there_is_no_circuit(run: Command) -> None:
    before = files_in(Path())
    code, out, err = run(
        "discover", "--ckpt_path", LAST, "--circuits.criterion", "[{metric: task_loss, at_most: 0.001}]"
    )
    assert code == 1
    assert out == ""
    assert re.fullmatch(r"no circuit: the full model does not meet the criterion .*\n", err)
    assert files_in(Path()) == before


def test_discover_refuses_bad_input_before_it_searches(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Auto, "shrink", None)
    before = files_in(Path())
    for argv, expected in (
        ((), "discover needs --ckpt_path FILE"),
        (("--ckpt_path", "none.ckpt"), "checkpoint 'none.ckpt' does not exist"),
        (("--ckpt_path", "last"), "discover --ckpt_path last needs --config, which names the run"),
        (("--ckpt_path", LAST, "--output", "circuit.txt"), "--output circuit.txt must be a file that ends in .json"),
        (("--ckpt_path", LAST, "--output", "copy.yaml/a.json"), "copy.yaml is no folder that can be written to"),
        (("--ckpt_path", LAST, "--circuits.margin", "2"), "circuits.margin must lie in [0, 1), got 2"),
        (("--ckpt_path", LAST, "--outptu", "a.json"), "unknown key 'outptu'; did you mean 'output'?"),
    ):
        code, out, err = run("discover", *argv)
        assert (code, out) == (2, "")
        assert expected in err
        assert len(err.splitlines()) <= 2
    assert files_in(Path()) == before


def test_the_help_says_where_the_circuit_goes(copying: Path, sparselit: Command) -> None:
    code, out, _ = sparselit("discover", "--help")
    assert code == 0
    assert "--output FILE.json" in out
    assert "step=N.2.json" in out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^  discover +find the circuit of a checkpoint", sparselit("--help").out, re.MULTILINE)


# -- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pressing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Press Ctrl-C at the beginning of the first search; gives the signals sent."""
    sent: list[int] = []
    shrink = Auto.shrink

    def pressed(self: Auto, *arguments: Any) -> None:
        if not sent:
            sent.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        shrink(self, *arguments)

    monkeypatch.setattr(Auto, "shrink", pressed)
    return lambda: sent


def test_ctrl_c_in_discover_writes_what_there_is(run: Command, pressing: Callable[[], list[int]]) -> None:
    before = circuits()
    code, out, err = run("discover", "--ckpt_path", LAST)
    assert len(pressing()) == 1
    assert code == 130
    assert "certificate  NONE, some edges may not be needed" in out
    assert err.endswith("ended by Ctrl-C: there is no certificate\n")
    after = circuits()
    assert after.keys() - before.keys() == {"step=60.partial.json", "step=60.partial.safetensors"}
    assert {name: after[name] for name in before} == before
    assert json.loads(after["step=60.partial.json"])["certificate"]["complete"] is False


def test_the_first_ctrl_c_in_fit_finishes_the_step_search_included(
    run: Command, trained: dict[str, Path], pressing: Callable[[], list[int]]
) -> None:
    shutil.rmtree("runs")
    code, _, err = run(*FIT)
    assert pressing() == [signal.SIGINT]
    assert code == 130
    assert "stopped after step 40; go on with:\nsparselit fit --ckpt_path runs/copy/version_" in err
    found = circuits()["step=40.json"]
    assert json.loads(found)["certificate"]["complete"] is True
    code, _, err = run(*FIT, "--ckpt_path", "last", "--circuits", "null")
    assert code == 0, err
    assert found == (trained[""] / "runs/copy/version_0/circuits/step=40.json").read_bytes()


# -- processes of their own: four seconds each -----------------------------------------------------------------------


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    script = Path(sys.executable).with_name("sparselit")
    return subprocess.Popen(
        [script, *argv], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_in_a_search_and_after_one_and_resumed_the_files_are_the_same(
    run: Command, trained: dict[str, Path], copying: Path
) -> None:
    shutil.rmtree("runs")
    argv = (*FIT, "--trainer.logger", "false")
    moments = [
        RUN / "circuits/prompts/report.jsonl",
        RUN / "checkpoints/step=40.ckpt",
    ]  # during and after
    for moment in moments:
        more = () if moment is moments[0] else ("--ckpt_path", "last")
        process = start(copying, *argv, *more)
        wait_for(moment, process)
        if moment is moments[1]:
            time.sleep(random.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, _, err = run(*argv, "--ckpt_path", "last")
    assert code == 0, err
    assert circuits() == circuits(trained[""] / RUN)
    assert not [path for path in files_in(RUN / "circuits") if path.endswith(".tmp")]


def test_a_second_ctrl_c_stops_a_search_at_once(copying: Path) -> None:
    search = "{class_path: a_copying_task.Patient, init_args: {seconds: 60}}"
    process = start(copying, *FIT, "--circuits.search", search)
    wait_for(copying / "searching", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None  # the step with its search goes on
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "the same signal again stops at once" in err
    assert not (copying / RUN / "circuits").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_search_that_is_made_up_for_after_a_kill_is_not_ended_with_what_it_has(
    copying: Path, signum: signal.Signals
) -> None:
    search = "{class_path: a_copying_task.Patient, init_args: {seconds: 60}}"
    patient = (*FIT, "--circuits.search", search)
    process = start(copying, *patient)
    wait_for(copying / "searching", process)
    process.kill()
    process.communicate(timeout=30)
    (copying / "searching").unlink()
    process = start(copying, *patient, "--ckpt_path", "last")
    wait_for(copying / "searching", process)
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signum, err
    assert not list((copying / RUN).rglob("circuits/step=*"))


def test_two_processes_search_once_and_agree(copying: Path) -> None:
    """The first process searches, the other one waits; about 10 s."""
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    stop = "[{class_path: RunCheckpoint}, {class_path: EarlyStopping, init_args: {monitor: circuit/found, mode: max, "
    stop += "stopping_threshold: 0.5, patience: 99}}]"
    process = start(copying, *FIT, *more, "--trainer.callbacks", stop, "--trainer.val_check_interval", "5")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err.count("step 40: circuit of") == 1
    assert "40 steps" in out  # both processes saw the circuit and stopped
    assert set(circuits(copying / RUN)) >= {"step=40.json", "step=40.safetensors"}
    assert out.count("## Circuit") == 1
