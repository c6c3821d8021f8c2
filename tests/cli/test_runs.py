"""``sparselit runs``, and the ``result.json`` that real runs leave: finished, interrupted, killed, failed, resumed."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sparselit.report.summary import summary
from sparselit.runs.result import Result, digest
from tests.runs import example

from .conftest import Command

FIT = ("fit", "--config", "quick.yaml")
RUN = Path("runs/quick/version_0")
SCRIPT = Path(sys.executable).with_name("sparselit")


def started(folder: Path, *argv: str) -> subprocess.Popen[str]:
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([SCRIPT, *argv], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def left(folder: Path = RUN) -> Result:
    """The result, which the summary beside it says."""
    result = Result.read(folder / "result.json")
    assert (folder / "summary.md").read_text(encoding="utf-8") == summary(result, folder)
    return result


# -- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_in_a_process_of_its_own_leaves_its_result_and_runs_lists_it(folder: Path) -> None:
    process = started(folder, *FIT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    result = left()
    assert out == f"\n{summary(result, RUN)}"
    assert (result.ended, result.steps.asked, result.steps.done, result.seed) == ("max_steps", 6, 6, 0)
    assert result.digest == digest(yaml.safe_load((RUN / "config.yaml").read_text()))
    assert {(row.split, row.stratum) for row in result.accuracies} >= {("val", "all"), ("report", "all")}
    assert result.density is not None
    assert result.density.target == result.density.reached
    counted = sum(row.nonzero for row in result.density.tensors) / sum(row.numel for row in result.density.tensors)
    assert result.density.total == counted
    assert result.circuits is None
    assert result.checkpoint == "checkpoints/step=6.ckpt"
    assert result.machine.threads == 1
    assert result.seconds.training > 0
    listed = subprocess.run([SCRIPT, "runs"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[1].split()[:3] == ["quick/version_0", "0", "6"]


def test_an_interrupted_run_says_so_and_going_on_leaves_one_consistent_result(folder: Path) -> None:
    argv = (*FIT, "--trainer.max_steps", "100000", "--trainer.callbacks", "[{class_path: RunCheckpoint}]")
    process = started(folder, *argv)
    wait_for_a_checkpoint(process)
    assert Result.read(RUN / "result.json").ended == "running"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    result = left()
    assert (result.ended, result.steps.asked) == ("interrupted", 100000)
    assert f"stopped after step {result.steps.done};" in err
    assert result.checkpoint == f"checkpoints/step={result.steps.done}.ckpt"
    assert result.seconds.training > 0
    assert result.density is not None
    assert result.density.reached is not None
    assert result.density.reached > (result.density.target or 1)
    assert f"{result.density.reached:.4g} reached, target 0.2" in (RUN / "summary.md").read_text()

    process = started(folder, *argv, "--ckpt_path", "last")
    wait_for_a_checkpoint(process, result.steps.done)
    process.kill()
    process.communicate(timeout=60)
    killed = Result.read(RUN / "result.json")
    assert (killed.ended, killed.steps.done) == ("running", result.steps.done)

    last = wait_for_a_checkpoint(None) + 5
    process = started(folder, *argv[:3], "--trainer.max_steps", str(last), "--ckpt_path", "last")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    again = left()
    assert (again.ended, again.steps.done, again.steps.asked) == ("max_steps", last, last)
    assert again.seconds.training > result.seconds.training
    assert [path.name for path in Path("runs/quick").iterdir()] == ["version_0"]


def wait_for_a_checkpoint(process: subprocess.Popen[str] | None, after: int = 0) -> int:
    """The highest step of a checkpoint, once there is one."""
    deadline = time.monotonic() + 90
    while True:
        steps = [int(path.stem.partition("=")[2]) for path in RUN.glob("checkpoints/step=*.ckpt")]
        if max(steps, default=0) > after:
            return max(steps)
        assert process is not None
        assert process.poll() is None, "the run ended before it was to be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_why_a_run_ended_is_said(sparselit: Command, folder: Path) -> None:
    stop = "{class_path: EarlyStopping, init_args: {monitor: val/loss, stopping_threshold: 99.0}}"
    assert sparselit(*FIT, "--trainer.callbacks", f"[{stop}]").code == 0
    assert left().ended == "early_stopping"
    assert left().steps.done == 3
    limits = ("--trainer.max_steps", "-1", "--trainer.max_epochs", "100000", "--trainer.max_time", "00:00:00:01")
    code, _, err = sparselit(*FIT, *limits, "--sparsity", "null", "--model.decay", "none", "--model.warmup", "0")
    assert code == 0, err
    timed = left(Path("runs/quick/version_1"))
    assert (timed.ended, timed.steps.asked) == ("max_time", None)
    assert timed.density is not None
    assert timed.density.target is None


def test_a_run_that_fails_on_its_way_says_so(sparselit: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparselit.errors import SparselitError
    from sparselit.modules import SparseTransformer

    def refuse(self: SparseTransformer) -> None:
        if self.global_step:
            raise SparselitError("too late")

    monkeypatch.setattr(SparseTransformer, "on_train_batch_start", lambda self, *_: refuse(self))
    assert sparselit(*FIT).code == 2
    failed = left()
    assert (failed.ended, failed.problems, failed.steps.done) == ("failed", ("too late",), 1)
    assert "- problem   too late\n" in (RUN / "summary.md").read_text()


def test_hyper_parameters_hold_density_seed_and_steps_beside_what_came_of_them(
    sparselit: Command, folder: Path
) -> None:
    assert sparselit(*FIT).code == 0
    events = EventAccumulator(str(RUN)).Reload()
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    figures = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert all(name in settings for name in (b"density/target", b"seed", b"steps", b"model/lr", b"data/batch_size"))
    assert all(name in figures for name in (b"report/accuracy", b"density/total", b"steps"))
    result = left()
    assert events.Scalars("report/accuracy")[-1].value == pytest.approx(result.accuracy("report"))


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(folder: Path) -> Path:
    """Three runs, one of them with a broken result."""
    for version, text in (
        (10, example.result(name="quotes/version_10", seed=None, circuits=None).text()),
        (2, example.result(name="quotes/version_2", circuits=example.circuits(example.circuit(complete=False))).text()),
        (3, example.result().text().replace('"seed": 0', '"seed": "zero"')),
    ):
        path = folder / "runs" / "quotes" / f"version_{version}"
        path.mkdir(parents=True)
        (path / "result.json").write_text(text)
    return folder / "runs"


def test_runs_are_listed_in_order_and_a_broken_one_costs_one_line(sparselit: Command, runs: Path) -> None:
    code, out, err = sparselit("runs")
    assert code == 0
    assert err == "runs/quotes/version_3/result.json: the field 'seed' is missing or not a count\n"
    head, *lines = out.splitlines()
    assert [line.split() for line in lines] == [
        ["quotes/version_2", "0", "1,200", "99.50", "%", "0.1", "≤44", "max_steps"],
        ["quotes/version_10", "-", "1,200", "99.50", "%", "0.1", "-", "max_steps"],
    ]
    assert head.split() == ["run", "seed", "steps", "accuracy", "density", "edges", "ended"]
    assert max(map(len, out.splitlines())) <= 80


def test_runs_as_rows_and_as_objects_say_the_same(sparselit: Command, runs: Path) -> None:
    objects = json.loads(sparselit("runs", "runs/quotes", "--json").out)
    rows = list(csv.DictReader(io.StringIO(sparselit("runs", "runs/quotes", "--csv").out)))
    assert [row["name"] for row in rows] == ["quotes/version_2", "quotes/version_10"]
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in objects] == rows
    assert objects[0]["folder"] == "runs/quotes/version_2"
    assert (objects[0]["certified"], objects[0]["edges"], objects[1]["edges"]) == (False, 44.0, None)


def test_runs_of_one_name_are_told_apart_by_their_folders(sparselit: Command, folder: Path) -> None:
    for root in ("here", "a_folder_with_a_very_long_name_indeed"):
        (folder / root).mkdir()
        (folder / root / "result.json").write_text(example.result().text())
    out = sparselit("runs", ".").out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["…h_a_very_long_name_indeed", "here"]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("nowhere",), "nowhere is no folder; give one with runs in it, such as runs"),
        (("empty",), "no result.json below empty; `sparselit fit` leaves one in each run folder"),
        (("empty", "--csv", "--json"), "not allowed with argument --csv"),
    ],
)
def test_where_there_is_nothing_to_list_that_is_said(
    sparselit: Command, folder: Path, argv: tuple[str, ...], message: str
) -> None:
    (folder / "empty").mkdir()
    code, out, err = sparselit("runs", *argv)
    assert (code, out) == (2, "")
    assert message in err
